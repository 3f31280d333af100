"""The numbers of all models, as a table and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tools.classify.finetune import Encoded, Outcome
from tools.text_table import aligned, markdown

HEAD = ("", "class", "parameters", "accuracy", "95% over seeds", "seconds")
MAJORITY = "majority class"


def row_of(path: Path, encoded: Encoded, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A model's numbers.

    Returns:
        ``accuracy`` is the mean over seeds and ``accuracy_ci95`` its interval, Student's t: it has
        the chance of head, order and dropout in it, and not that of the test rows, which all
        seeds share. None for one seed. ``accuracies`` are in the seeds' order; ``new`` has the
        names of parameters that began at random.
    """
    from pretrain.evaluation.rounds import half_width

    accuracies = [one.accuracy for one in outcomes]
    mean = fmean(accuracies)
    width = half_width(accuracies) if len(accuracies) > 1 else None
    return {
        "model": str(path),
        "class": outcomes[0].kind,
        "parameters": outcomes[0].parameters,
        "accuracy": mean,
        "accuracy_ci95": None if width is None else [max(0, mean - width), min(1, mean + width)],
        "accuracies": accuracies,
        "new": outcomes[0].new,
        "seconds": fmean(one.seconds for one in outcomes),
        "length": encoded.length,
        "truncated": dict(zip(("train", "test"), encoded.truncated, strict=True)),
    }


def table(rows: Sequence[dict[str, Any]], majority: float, *, as_markdown: bool = False) -> str:
    """A line for each model, and the one of the majority class."""
    lines = [*map(_cells, rows), [MAJORITY, "", "", f"{majority:.3f}", "", ""]]
    if as_markdown:
        return markdown(HEAD, lines)
    return "\n".join(aligned([HEAD, *lines], right=range(2, len(HEAD))))


def _cells(row: dict[str, Any]) -> list[str]:
    bounds = row["accuracy_ci95"]
    return [
        row["model"],
        row["class"],
        f"{row['parameters']:,}",
        f"{row['accuracy']:.3f}",
        "-" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
        f"{row['seconds']:.1f}",
    ]
