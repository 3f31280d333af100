"""Metrics: one JSON row per logged step.

Names are ``group/name_unit``. Rows are written in the order of the steps; when a run
resumes, the rows after the checkpoint's step are dropped first, so that no step is
repeated or missing. Rows up to a checkpoint's step are flushed to the disk before it is
committed, and the checkpoint records their number: rows lost to a crash or a bad disk are
noticed, and a line that cannot be read costs no other line. JSON has neither NaN nor infinity:
such a number is null in the file, and NaN for callers of :func:`read_rows`. Other loggers are in
``pretrain/run/loggers``.
"""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]

MOST = 2.0**128
"""Upper bound of a valid number, which neither infinity nor NaN is below."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file, without lines that cannot be read."""
    return _scan(path)[0]


def number(value: Any) -> float | None:
    """A value of a row as a float; None where it is no number, or exceeds float32."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < MOST else None


def _scan(path: Path) -> tuple[list[Row], list[int]]:
    """Rows, and numbers (from 1) of unreadable lines, except a last one cut short by a crash."""
    if not path.is_file():
        return [], []
    *lines, cut = path.read_bytes().split(b"\n")
    found = [_row(line) for line in lines]
    bad = [number for number, row in enumerate(found, 1) if row is None]
    return [row for row in [*found, _row(cut)] if row is not None], bad


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return {key: math.nan if value is None else value for key, value in row.items()}


def _line(row: Row) -> str:
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"


class Metrics:
    """The metrics file of a run, opened at the step from which it goes on.

    Args:
        saved_rows: number of rows when that step's checkpoint was saved, if known.

    Attributes:
        num_rows: rows in the file.
        warnings: lines for the user about damage to the file.
    """

    def __init__(self, path: Path, resumed_step: int, saved_rows: int | None = None) -> None:
        rows, bad = _scan(path)
        # A validation that was owed at a save has its row after it, at the same step.
        kept = [row for row in rows if row["step"] <= resumed_step][:saved_rows]
        self.num_rows = len(kept)
        self.warnings = [*_unreadable(path, bad), *_lost(path, len(kept), saved_rows)]
        aside = path.with_name(f".{path.name}")
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(map(_line, kept))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append one row, and flush it to the operating system."""
        self._file.write(_line(row))
        self._file.flush()
        self.num_rows += 1

    def to_disk(self) -> None:
        """Flush the rows to the disk, so that they survive a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _unreadable(path: Path, bad: list[int]) -> list[str]:
    """Warnings about unreadable lines; a copy of the file with them is kept."""
    if not bad:
        return []
    copy = path.with_name(f"{path.stem}.damaged-{time.time_ns()}{path.suffix}")
    shutil.copy2(path, copy)
    numbers = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    noun = "line" if len(bad) == 1 else "lines"
    return [f"{path}: {noun} {numbers} cannot be read, all others stay; a copy is {copy.name}"]


def _lost(path: Path, kept: int, saved: int | None) -> list[str]:
    """Warnings about rows that are missing since the checkpoint was saved."""
    if saved is None or kept == saved:
        return []
    return [f"{path}: holds {kept} rows up to the checkpoint's step, where {saved} were written"]
