"""metrics.csv: the rows of metrics.jsonl as a table, for spreadsheets and ``pandas.read_csv``.

It is written anew from those rows at every start. A name that appears in no earlier row becomes
the last column, and the file is written again: the header names every column, and columns never
move.
"""

import csv
from collections.abc import Iterable, Sequence
from typing import IO

from pretrain.run.loggers.logger import Opening
from pretrain.run.metrics import Row

NAME = "metrics.csv"


class CsvFile:
    """metrics.csv of a run."""

    def __init__(self, opening: Opening) -> None:
        self._path = opening.directory / NAME
        rows = opening.rows()
        self._columns = _with(self._header(), rows)
        self._begin(rows)

    def write(self, row: Row) -> None:
        """Append one row; it is in the file when this returns."""
        columns = _with(self._columns, [row])
        if columns != self._columns:
            self._file.close()
            with self._path.open(encoding="utf-8", newline="") as file:
                before = list(csv.DictReader(file))
            self._columns = columns
            self._begin(before)
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _header(self) -> list[str]:
        """Columns of an earlier start; ``step`` alone in a new run."""
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                found = next(csv.reader(file), [])
        except (FileNotFoundError, UnicodeError, csv.Error):
            found = []
        return found if found[:1] == ["step"] else ["step"]

    def _begin(self, rows: Iterable[Row]) -> None:
        aside = self._path.with_name(f".{NAME}")
        self._file: IO[str] = aside.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, self._columns, lineterminator="\n")
        self._writer.writeheader()
        self._writer.writerows(rows)
        self._file.flush()
        aside.replace(self._path)


def _with(columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The columns, followed by names of the rows that are not among them."""
    return list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
