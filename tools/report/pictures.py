"""The pictures of runs, and the table of what differs in their configurations."""

from pathlib import Path

from configs.errors import UserError
from tools.report.curves import Run, differences, read_runs
from tools.report.plots import draw_levels, draw_loss, draw_training
from tools.text_table import aligned


def report(paths: list[Path], out: Path | None = None, unigram: float | None = None) -> list[Path]:
    """Draw the pictures of one run, or of several over each other; returns their paths.

    Args:
        out: where to; for one run its own ``plots`` by default.
        unigram: nats per token of the unigram model, drawn as a line to compare with.
    """
    runs = read_runs(paths)
    if out is None and len(runs) > 1:
        raise UserError("several runs: name a directory for their pictures with --out DIR")
    directory = out or paths[0] / "plots"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {directory}: {error.strerror}") from error
    return [
        draw_loss(runs, directory / "loss.png", unigram),
        draw_levels(runs, directory / "levels.png"),
        draw_training(runs, directory / "training.png"),
    ]


def table(runs: list[Run]) -> str:
    """A table of the keys in which configurations of runs differ."""
    found = differences(runs)
    if not found:
        return "their configurations are the same"
    lines = [["", *(run.name for run in runs)], *([key, *values] for key, values in found)]
    return "\n".join(aligned(lines))
