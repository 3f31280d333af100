"""``python -m tools.report RUN [RUN ...]``: pictures of runs, from their metrics.

loss.png         training loss, every point and a smoothed line, and the held-out numbers
levels.png       training loss by range of the noise level
training.png     gradient norm, learning rate, tokens per second
differences.txt  of several runs: the keys in which their configurations differ

One run's pictures are in its own ``plots``; several runs are drawn over each other into
``--out``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError, exit_code
from tools import command
from tools.report.curves import Run, differences, read_runs
from tools.report.plots import draw_levels, draw_loss, draw_training


def report(paths: list[Path], out: Path | None = None, unigram: float | None = None) -> list[Path]:
    """Draw the pictures of one run, or of several over each other; returns their paths.

    Args:
        out: where to; for one run its own ``plots`` by default.
        unigram: nats per token of the unigram model, drawn as a line to compare with.
    """
    runs = read_runs(paths)
    if out is None and len(runs) > 1:
        raise UserError("several runs: say with --out DIR where their pictures are to be")
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
    """What differs in the configurations of runs, a line for each key."""
    found = differences(runs)
    if not found:
        return "their configurations are the same"
    lines = [["", *(run.name for run in runs)], *([key, *values] for key, values in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = command.parser("report", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write there (default, of one run: RUN/plots)"
    )
    arguments = parser.parse_args(argv)

    def report_runs() -> int:
        pictures = report(arguments.runs, arguments.out)
        for path in pictures:
            print(path)
        if len(arguments.runs) > 1:
            text = table(read_runs(arguments.runs))
            file = pictures[0].parent / "differences.txt"
            file.write_text(text + "\n", encoding="utf-8")
            print(f"{file}\n\n{text}")
        return 0

    return exit_code(report_runs)


if __name__ == "__main__":
    sys.exit(main())
