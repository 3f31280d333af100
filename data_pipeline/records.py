"""Read records from JSON lines, CSV and TSV tables, Parquet and Arrow files.

Each record comes with its place in the file. For one that cannot be read an error is yielded, so
that the caller may count it and continue.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import UserError

_UTF8_BOM = b"\xef\xbb\xbf"
_ROWS_AT_ONCE = 1024


class BadRecordError(Exception):
    """A line or row that is no document; the message says why and what to do."""


Record = tuple[str, dict[str, Any] | BadRecordError | None]
"""A place in a file, and its record or error; None for a blank line."""


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines from 1 on, with their line ends, without a byte-order mark."""
    for number, raw in enumerate(file, start=1):
        yield number, raw.removeprefix(_UTF8_BOM) if number == 1 else raw


def json_records(path: Path, file: BinaryIO) -> Iterator[Record]:
    """One object a line."""
    for number, raw in numbered_lines(file):
        yield f"{path}:{number}", _json_object(raw) if raw.strip() else None


def table_records(path: Path, file: BinaryIO, delimiter: str) -> Iterator[Record]:
    """Rows of a CSV or TSV file by the names of its first line; cells may be quoted with ``"``."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # else no document may be long
    # Bytes that are no UTF-8 become halves of surrogate pairs, and are found in their row.
    lines = (raw.decode("utf-8", "surrogateescape") for _, raw in numbered_lines(file))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        place = f"{path}:{rows.line_num + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, BadRecordError(f"not a row of a table ({error})")
            continue
        if not row:
            yield place, None
        elif header is None:
            header = row
            if len(set(header)) < len(header):
                raise UserError(f"{place}: names a column twice ({', '.join(header)})")
        elif fault := _fault(row, header, delimiter):
            yield place, BadRecordError(fault)
        else:
            yield place, dict(zip(header, row, strict=True))


def _fault(row: list[str], header: list[str], delimiter: str) -> str:
    """Why a row does not fit its table; empty if it does."""
    if len(row) != len(header):
        return f"{len(row)} cells, but the header names {len(header)}"
    if not _is_utf8("".join(row)):
        return "not UTF-8; convert the file, e.g. with iconv"
    holding = (name for column, name in enumerate(header) if _holds_rows(row, column))
    if delimiter == "\t" and (name := next(holding, None)) is not None:
        return f"a quotation mark joins rows in field '{name}'; convert the table to JSON lines"
    return ""


def _holds_rows(row: list[str], column: int) -> bool:
    """Whether a cell holds several rows, joined by stray quotation marks.

    Most programs write TSV without quoting. Such a cell lacks the tabs of its own row and holds
    those of the others.
    """
    first, *others = (line.count("\t") for line in row[column].split("\n"))
    last = len(row) - 1
    return bool(others) and last > 0 and [first, *others] == [
        last - column, *[last] * (len(others) - 1), column
    ]  # fmt: skip


def parquet_records(path: Path) -> Iterator[Record]:
    """Rows of a Parquet file, the usual form of corpora on the Hugging Face hub."""
    import datasets  # a second to import, and few corpora need it

    # Errors are raised below; the library would log them as well.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    # Not load_dataset, which reports every load to the hub.
    rows = _explained(f"{path}: not a Parquet file", lambda: _parquet_rows(path, datasets))
    for number, row in enumerate(rows):
        yield f"{path}: row {number}", row


def arrow_records(path: Path, fields: Sequence[str]) -> Iterator[Record]:
    """Rows of an Arrow file or stream, as `datasets` and pandas save them."""
    rows = _explained(f"{path}: not an Arrow file", lambda: _arrow_rows(path, fields))
    for number, row in enumerate(rows):
        yield f"{path}: row {number}", row


def _parquet_rows(path: Path, datasets: Any) -> Iterator[dict[str, Any]]:
    # By its own default it reads as many rows at once as the first group has, and fails at none.
    yield from datasets.IterableDataset.from_parquet(str(path), batch_size=_ROWS_AT_ONCE)


def _arrow_rows(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            source.seek(0)
            batches = iter(pyarrow.ipc.open_stream(source))
        for batch in batches:
            batch.validate(full=True)
            known = set(fields) <= set(batch.schema.names)
            yield from (batch.select(list(fields)) if known else batch).to_pylist()


def _explained(what: str, rows: Any) -> Iterator[dict[str, Any]]:
    """The rows, with any exception of the libraries as UserError."""
    found: Iterable[dict[str, Any]] = rows()
    try:
        yield from found
    except Exception as error:
        raise UserError(f"{what} ({error.__cause__ or error})") from error


def _json_object(raw: bytes) -> dict[str, Any] | BadRecordError:
    try:
        record = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return BadRecordError(f"not a JSON object ({error})")
    if isinstance(record, list):
        return BadRecordError(
            "not a JSON object (but a list; one object a line is expected: jq -c '.[]' unpacks it)"
        )
    if not isinstance(record, dict):
        return BadRecordError(
            f"not a JSON object (but a {type(record).__name__}; one object a line is expected)"
        )
    return record


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
