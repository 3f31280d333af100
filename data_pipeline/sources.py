"""Iterate over the documents of text, JSON lines, table, Parquet, Arrow and FASTA files.

Text and JSON lines are split on the byte `\n` and decoded line by line. Text mode would be
shorter, and so would the line reader of `datasets`, but both turn a lone carriage return
into a line end and CRLF inside a document into LF, and neither can name the line that is
not UTF-8. Here a document is the file's own text, to the character.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from configs.errors import UserError
from data_pipeline.compression import opened
from data_pipeline.fasta import fasta_records
from data_pipeline.forms import Form, form_of, known_ending
from data_pipeline.records import (
    BadRecordError,
    Record,
    arrow_records,
    json_records,
    numbered_lines,
    parquet_records,
    table_records,
)

Unit = Literal["line", "paragraph", "file"]

_LOOKED_AT = 10_000  # files of a directory, to name a pattern of them


class Documents:
    """The documents of some files, in the order given; iterate as often as you like.

    With several ``fields`` every record is as many documents, one after the other, none of
    which may be empty: a source and a target.

    JSON lines hold one object a line, tables, Parquet and Arrow files one record a row, FASTA
    files one below each header, cut into documents of at most `longest` letters; text is cut by
    `unit`: `line` at LF or CRLF, `paragraph` at blank lines, `file` not at all. The form
    of a file is `form` or recognised (`forms.py`); all but Parquet and Arrow may be
    compressed. Documents of nothing but white space are left out.

    Attributes:
        files: the files found.
        skipped: how many "empty" documents and "bad" lines the latest pass left out.

    Raises:
        UserError: at once if a name matches no file; before the first document, at a file of no
            known form; while iterating, at a bad line (unless `skip_bad`), an unreadable file,
            and at the end if there was no document at all.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        *,
        fields: Sequence[str] = ("text",),
        unit: Unit = "line",
        form: Form | None = None,
        skip_bad: bool = False,
        longest: int | None = None,
    ) -> None:
        assert unit in get_args(Unit), unit
        assert form is None or form in get_args(Form), form
        self.files = [path for name in files for path in _matches(str(name))]
        if not self.files:
            raise UserError(
                "no input files: name at least one text, JSON-lines, CSV, Parquet, Arrow or FASTA "
                "file"
            )
        self.fields = tuple(fields)
        self.unit = unit
        self.form = form
        self.skip_bad = skip_bad
        self.longest = longest
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        self.skipped.clear()
        self.skipped.update(empty=0, bad=0)
        for path in self.files:
            if path.is_file():  # a pipe is looked at once only
                self.form_of(path)
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

    def form_of(self, path: Path) -> Form:
        """The form that a file is read as.

        Raises:
            UserError: it cannot be read, or its form is ambiguous.
        """
        try:
            with opened(path) as file:
                return form_of(path, file, fields=self.fields, asked=self.form)
        except (OSError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error

    def _read(self, path: Path) -> Iterator[str]:
        try:
            with opened(path) as file:
                form = form_of(path, file, fields=self.fields, asked=self.form)
                if self.longest is not None and form != "fasta":
                    raise UserError(f"{path}: is {form}; only FASTA records are cut by --longest")
                if form != "text":
                    yield from self._from_records(self._records(path, file, form))
                elif len(self.fields) > 1:
                    raise UserError(f"{path}: pairs come from JSON lines, tables, Parquet or Arrow")
                else:
                    yield from self._from_text(path, file)
        except (OSError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error

    def _records(self, path: Path, file: io.BufferedReader, form: Form) -> Iterator[Record]:
        if form == "parquet":
            return parquet_records(path)
        if form == "arrow":
            return arrow_records(path, self.fields)
        if form == "fasta":
            return fasta_records(path, file, self.longest)
        if form == "jsonl":
            return json_records(path, file)
        return table_records(path, file, {"csv": ",", "tsv": "\t"}[form])

    def _from_text(self, path: Path, file: io.BufferedReader) -> Iterator[str]:
        lines = self._lines(path, file)
        if self.unit == "line":
            yield from map(_without_line_end, lines)
        elif self.unit == "paragraph":
            yield from _paragraphs(lines)
        else:
            # Joined from lines, so that a byte that is not UTF-8 is reported by its line.
            yield "".join(lines)

    def _lines(self, path: Path, file: io.BufferedReader) -> Iterator[str]:
        """Decoded lines of a text file, with their line ends."""
        for number, raw in numbered_lines(file):
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                self._bad(
                    f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start}); "
                    "convert the file, e.g. with iconv"
                )

    def _from_records(self, records: Iterator[Record]) -> Iterator[str]:
        for place, record in records:
            if record is None:
                yield ""
                continue
            try:
                if isinstance(record, BadRecordError):
                    raise record
                yield from self._documents(record)
            except BadRecordError as error:
                self._bad(f"{place}: {error}")

    def _documents(self, record: dict[str, Any]) -> list[str]:
        """The texts of a record; raises BadRecordError where one is missing."""
        texts = [self._text(record, field) for field in self.fields]
        if len(texts) > 1 and not all(text.strip() for text in texts):
            raise BadRecordError(f"one of {', '.join(self.fields)} is empty")
        return texts

    def _text(self, record: dict[str, Any], field: str) -> str:
        if field not in record:
            names = ", ".join(record) or "none"
            option = "--field" if len(self.fields) == 1 else "--pairs"
            raise BadRecordError(
                f"no field '{field}' (fields: {names}); name the right one with {option}"
            )
        text = record[field]
        if not isinstance(text, str):
            raise BadRecordError(f"field '{field}' is {type(text).__name__}, not a string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRecordError(
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
            raise UserError(f"{found}: is a directory; name its files, e.g. '{_pattern(found)}'")
    return paths


def _pattern(directory: Path) -> str:
    """The pattern of what is likely meant: the largest file in it of a known form, and its like."""
    found = [path for path in islice(directory.rglob("*"), _LOOKED_AT) if path.is_file()]
    sizes = {path: path.stat().st_size for path in found if known_ending(path)}
    if not sizes:
        return f"{directory}/*.jsonl"
    largest = max(sizes, key=lambda path: sizes[path])
    return f"{largest.parent}/*{known_ending(largest)}"


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
