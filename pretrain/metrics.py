"""Metrics: one JSON row per logged step.

Names are ``group/name_unit``. Rows are written whole, in the order of the steps; when a
run resumes, the rows after the checkpoint's step are dropped first, so that no step is
repeated or missing. Other loggers are in ``pretrain/loggers``.
"""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Metrics:
    """The metrics file of a run, opened at the step that it resumes from."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        kept = [row for row in read_rows(path) if row["step"] <= resumed_step]
        aside = path.with_name(f".{path.name}")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        aside.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append one row; it is in the file when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
