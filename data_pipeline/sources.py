"""Documents, one string after the other, from text, JSON-lines and Parquet files.

Text and JSON lines are split on the byte `\n` and decoded line by line. Text mode would be
shorter, and so would the line reader of `datasets`, but both turn a lone carriage return
into a line end and CRLF inside a document into LF, and neither can name the line that is
not UTF-8. Here a document is the file's own text, to the character. Parquet, the form in
which the Hugging Face hub ships corpora, streams through `datasets`.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Literal, get_args

from configs.errors import UserError

Unit = Literal["line", "paragraph", "file"]

_UTF8_BOM = b"\xef\xbb\xbf"


class _BadRecordError(Exception):
    """One line (or row) that is no document; its text says why and what to do."""


class Documents:
    """The documents of some files, in the order given; iterate as often as you like.

    With several ``fields`` every record is as many documents, one after the other, none of
    which may be empty: a source and a target.

    `.jsonl` and `.json` files hold one JSON object a line, `.parquet` files one document a
    row, and all others text; `.gz` may follow any but the last. `unit` cuts text files:
    `line` at LF or CRLF, `paragraph` at blank lines, `file` not at all. Documents of
    nothing but white space are left out.

    Attributes:
        files: the files found.
        skipped: how many "empty" documents and "bad" lines the latest pass left out.

    Raises:
        UserError: at once if a name matches no file; while iterating, at a bad line (unless
            `skip_bad`), an unreadable file, and at the end if there was no document at all.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        *,
        fields: Sequence[str] = ("text",),
        unit: Unit = "line",
        skip_bad: bool = False,
    ) -> None:
        assert unit in get_args(Unit), unit
        self.files = [path for name in files for path in _matches(str(name))]
        if not self.files:
            raise UserError("no input files: name at least one text, JSON-lines or Parquet file")
        self.fields = tuple(fields)
        self.unit = unit
        self.skip_bad = skip_bad
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        self.skipped.clear()
        self.skipped.update(empty=0, bad=0)
        found = 0
        for path in self.files:
            for document in self._read(path):
                if document.strip():
                    found += 1
                    yield document
                else:
                    self.skipped["empty"] += 1
        if not found:
            raise UserError(
                f"no document in {', '.join(map(str, self.files))}: every line is empty or bad "
                f"({self.skipped['empty']} empty, {self.skipped['bad']} bad)"
            )

    def _read(self, path: Path) -> Iterator[str]:
        kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        try:
            if kind == ".parquet":
                yield from self._parquet_rows(path)
            elif kind in (".jsonl", ".json"):
                yield from self._json_lines(path)
            elif len(self.fields) > 1:
                raise UserError(f"{path}: pairs come from JSON-lines or Parquet files")
            elif self.unit == "line":
                yield from (_without_line_end(line) for line in self._lines(path))
            elif self.unit == "paragraph":
                yield from _paragraphs(self._lines(path))
            else:
                # Joined from lines, so that a byte that is not UTF-8 is reported by its line.
                yield "".join(self._lines(path))
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error

    def _lines(self, path: Path) -> Iterator[str]:
        """Lines of a text file with their ends, decoded, without a byte-order mark."""
        for number, raw in _numbered_lines(path):
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                self._bad(
                    f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start}); "
                    "convert the file, e.g. with iconv"
                )

    def _json_lines(self, path: Path) -> Iterator[str]:
        for number, raw in _numbered_lines(path):
            if not raw.strip():
                yield ""
                continue
            try:
                yield from self._documents(_json_object(raw))
            except _BadRecordError as error:
                self._bad(f"{path}:{number}: {error}")

    def _parquet_rows(self, path: Path) -> Iterator[str]:
        for number, row in enumerate(_parquet_records(path)):
            try:
                yield from self._documents(row)
            except _BadRecordError as error:
                self._bad(f"{path}: row {number}: {error}")

    def _documents(self, record: dict[str, object]) -> list[str]:
        """The texts of a record; raises _BadRecordError where one is missing."""
        texts = [self._text(record, field) for field in self.fields]
        if len(texts) > 1 and not all(text.strip() for text in texts):
            raise _BadRecordError(f"one of {', '.join(self.fields)} is empty")
        return texts

    def _text(self, record: dict[str, object], field: str) -> str:
        if field not in record:
            names = ", ".join(record) or "none"
            option = "--field" if len(self.fields) == 1 else "--pairs"
            raise _BadRecordError(
                f"no field '{field}' (fields: {names}); name the right one with {option}"
            )
        text = record[field]
        if not isinstance(text, str):
            raise _BadRecordError(f"field '{field}' is {type(text).__name__}, not a string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _BadRecordError(
                f"field '{field}' holds half of a surrogate pair at character {error.start}"
            ) from None
        return text

    def _bad(self, message: str) -> None:
        if not self.skip_bad:
            raise UserError(f"{message}; --skip-bad counts such lines instead")
        self.skipped["bad"] += 1


def _matches(name: str) -> list[Path]:
    path = Path(name)
    # The name itself comes first: a file may be called a[1].txt.
    paths = [path] if path.exists() else sorted(map(Path, glob(name, recursive=True)))
    if not paths:
        raise UserError(f"{name}: no such file, and no file matches it as a pattern")
    for found in paths:
        if found.is_dir():
            raise UserError(f"{found}: is a directory; name its files, e.g. '{found}/*.jsonl'")
    return paths


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            yield number, raw.removeprefix(_UTF8_BOM) if number == 1 else raw


def _parquet_records(path: Path) -> Iterator[dict[str, object]]:
    import datasets  # a second to import, and few corpora need it

    # Errors are raised below; the library would log them as well.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        # Not load_dataset: it tells the hub of every load.
        yield from datasets.IterableDataset.from_parquet(str(path))
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{path}: not a Parquet file ({error.__cause__ or error})") from error


def _json_object(raw: bytes) -> dict[str, object]:
    try:
        record = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _BadRecordError(f"not a JSON object ({error})") from None
    if not isinstance(record, dict):
        raise _BadRecordError(
            f"not a JSON object (but a {type(record).__name__}; one object a line is expected)"
        )
    return record


def _without_line_end(line: str) -> str:
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip(" \t\r\n"):
            paragraph.append(line)
        elif paragraph:
            yield _without_line_end("".join(paragraph))
            paragraph = []
    if paragraph:
        yield _without_line_end("".join(paragraph))
