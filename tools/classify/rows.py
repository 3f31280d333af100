"""Labelled texts: JSON lines with the fields ``text`` and ``label``."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text and what it is.

    Args:
        label: a class by its name; numbers and truth values are written out.
    """

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """The rows to train on and the rows to test on.

    Args:
        classes: all labels of training, in order; a class's number is its place.
    """

    train: list[Labelled]
    test: list[Labelled]
    classes: list[str]

    @property
    def majority(self) -> tuple[str, float]:
        """The most frequent label of training, and its share of the rows to test on."""
        ((label, _),) = Counter(row.label for row in self.train).most_common(1)
        return label, sum(row.label == label for row in self.test) / len(self.test)


def read_task(train: Path, test: Path) -> Task:
    """Both files.

    Raises:
        UserError: a file is empty or a line is no row; there is one class only, or one that
            training lacks.
    """
    rows, tested = read_rows(train), read_rows(test)
    classes = sorted({row.label for row in rows})
    if len(classes) == 1:
        raise UserError(f"{train}: every row has the label {classes[0]!r}; it takes two or more")
    for number, row in enumerate(tested, start=1):
        if row.label not in classes:
            raise UserError(
                f"{test}: row {number} has the label {row.label!r}, which no row of {train} has "
                f"({_some(classes)})"
            )
    return Task(train=rows, test=tested, classes=classes)


def read_rows(path: Path) -> list[Labelled]:
    """The rows of a file; blank lines are passed over.

    Raises:
        UserError: there is none, or a line is no row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 text: {error.reason}") from error
    rows = [_row(line, f"{path}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(
            f'{path}: is empty; write a line {{"text": ..., "label": ...}} for each text'
        )
    return rows


def _row(line: str, where: str) -> Labelled:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON: {error}") from error
    fields = found if isinstance(found, dict) else {}
    text, label = fields.get("text"), fields.get("label")
    if not isinstance(text, str) or not isinstance(label, (str, int)):
        raise UserError(
            f'{where}: no row; it takes {{"text": a string, "label": a string or whole number}}'
        )
    return Labelled(text=text, label=str(label))


def _some(classes: Sequence[str]) -> str:
    shown = ", ".join(map(repr, classes[:8]))
    return f"{shown}, ... and {len(classes) - 8} more" if len(classes) > 8 else shown
