"""Recognise the form of an input file (text, JSON lines, tables, Parquet, Arrow, FASTA).

The first bytes decide where they can (Parquet, Arrow, archives), then the name, ignoring case,
then the beginning of the text. In doubt an error names the `--format` to give: a wrong guess
would train on braces and headers, and show in a loss curve at best.
"""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from configs.errors import UserError
from data_pipeline.compression import HEAD, SUFFIXES, compression_of

Form = Literal["text", "jsonl", "csv", "tsv", "parquet", "arrow", "fasta"]

_NAMED: dict[str, Form] = {
    ".txt": "text", ".text": "text",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonlines": "jsonl", ".json": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
    ".fa": "fasta", ".fasta": "fasta", ".fna": "fasta",
}  # fmt: skip

_OTHER_NAMES = {
    ".2bit", ".7z", ".avro", ".bin", ".br", ".db", ".doc", ".docx", ".epub", ".faa",
    ".fastq", ".fq", ".gguf", ".h5", ".hdf5",
    ".htm", ".html", ".idx", ".ipynb", ".lz4", ".lzma", ".lzo", ".msgpack", ".npy", ".npz",
    ".odt", ".orc", ".pdf", ".pickle", ".pkl", ".pt", ".pth", ".rar", ".rtf", ".safetensors",
    ".snappy", ".sqlite", ".sz", ".tar", ".tfrecord", ".tfrecords", ".tgz", ".warc", ".wat",
    ".wet", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".z", ".zip",
}  # fmt: skip

_LFS = b"version https://git-lfs.github.com/spec/"
_UNPACK = "unpack it and name its files"
_CONVERT = "convert it to JSON lines or Parquet"
_UTF8 = "convert it, e.g. with iconv -f UTF-{} -t UTF-8"
_FOREIGN = (  # place, first bytes, name, what to do
    (0, b"\xff\xfe\0\0", "UTF-32 text", _UTF8.format(32)),
    (0, b"\0\0\xfe\xff", "UTF-32 text", _UTF8.format(32)),
    (0, b"\xff\xfe", "UTF-16 text", _UTF8.format(16)),
    (0, b"\xfe\xff", "UTF-16 text", _UTF8.format(16)),
    (0, b"PK\x03\x04", "a zip archive (or an office document)", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", "decompress it"),
    (0, b"\x1f\x9d", "compressed with compress", "decompress it"),
    (0, b"\xff\x06\0\0sNaPpY", "compressed with snappy", "decompress it"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT),
    (0, b"\x93NUMPY", "a numpy array", _CONVERT),
    (0, b"SQLite format 3\0", "an SQLite database", _CONVERT),
    (0, b"Obj\x01", "an Avro file", _CONVERT),
    (0, b"MMIDIDX\0\0", "the index of Megatron's shards", "name the text that they were made of"),
    (0, b"\x89PNG\r\n\x1a\n", "a picture", "name text files"),
    (0, b"\xff\xd8\xff", "a picture", "name text files"),
    (0, b"%PDF-", "a PDF document", "extract its text"),
    (0, b"{\\rtf", "an RTF document", "extract its text"),
    (0, b"WARC/", "a WARC archive", "extract its records to JSON lines"),
    (0, _LFS, "a pointer of Git LFS to the file itself", "fetch that with git lfs pull"),
    *((0, bytes([0x80, number]), "a pickle", _CONVERT) for number in range(2, 6)),
)

# A JSON object, or an array of objects or strings, on one line or over many; or Python's own.
_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_JSON = re.compile(rf"\s*(?:(?:\[\s*)*\{{\s*(?:{_STRING}\s*:|\}})|(?:\[\s*)+{_STRING}\s*[,\]])")
_MARKUP = re.compile(r"\s*(?:<\?xml|<!doctype|<html|<mediawiki)", re.IGNORECASE)


def form_of(
    path: Path, file: io.BufferedReader, *, fields: Sequence[str], asked: Form | None
) -> Form:
    """The form of an opened file; its position does not change.

    Args:
        fields: names that a header would hold. asked: the form that the user gave.

    Raises:
        UserError: it cannot be read, or its form is ambiguous; the message says what to do.
    """
    head = file.peek(HEAD)
    suffix = _endings(path)[0].lower()
    text = _decoded(head)
    _refuse_foreign(path, head, text)
    if table := _table(head, text):
        if asked not in (None, table):
            raise UserError(f"{path}: is {table.title()}, not {asked}")
        if not isinstance(file.raw, io.FileIO):
            raise UserError(f"{path}: {table.title()} inside a compressed file; decompress it")
        if not path.is_file():
            raise UserError(f"{path}: {table.title()} is read from files only; write it to one")
        return table
    wanted = asked or _NAMED.get(suffix)
    if wanted in ("parquet", "arrow"):
        raise UserError(f"{path}: not {'a Parquet' if wanted == 'parquet' else 'an Arrow'} file")
    if asked is None:
        _refuse_doubt(path, suffix, text, fields)
    if wanted == "jsonl" and text is not None:
        _refuse_spread_json(path, text)
    return wanted or "text"


def known_ending(path: Path) -> str:
    """A name's suffix if it determines the form, with that of a compression; else empty."""
    ending, packed = _endings(path)
    return ending + packed if ending.lower() in _NAMED else ""


def _endings(path: Path) -> tuple[str, str]:
    """Split a name's suffixes: the last one before that of a compression, and the latter."""
    *others, last = ["", *path.suffixes]
    return (others[-1], last) if others and last.lower() in SUFFIXES else (last, "")


def _decoded(head: bytes) -> str | None:
    """Decode the first bytes; None for binary data (NUL, or control characters outside UTF-8)."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        text = head.decode("latin-1")
        if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text):
            return None
    return None if "\0" in text else text


def _refuse_foreign(path: Path, head: bytes, text: str | None) -> None:
    for place, magic, name, advice in _FOREIGN:
        if head.startswith(magic, place):
            raise UserError(f"{path}: is {name}, which is not read; {advice}")
    if text is None and head.startswith((b"ORC", b"FEA1", b"\x00\x00\x00\x00ORC")):
        raise UserError(f"{path}: is an ORC or an old Feather file, which is not read; {_CONVERT}")
    if compression_of(head) is not None:
        raise UserError(f"{path}: is compressed twice; decompress it once")


def _table(head: bytes, text: str | None) -> Literal["parquet", "arrow"] | None:
    if text is None and head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1\0\0", b"\xff\xff\xff\xff")):
        return "arrow"
    return None


def _refuse_doubt(path: Path, suffix: str, text: str | None, fields: Sequence[str]) -> None:
    """UserError if name and beginning leave the form of a file open."""
    if suffix in _OTHER_NAMES:
        raise UserError(
            f"{path}: {suffix} files are not known here; {_CONVERT}, or say with --format text "
            "that it is plain text"
        )
    if text is None:
        raise UserError(
            f"{path}: is no text, and its form is not known; {_CONVERT}, or say what it is "
            "with --format"
        )
    named = _NAMED.get(suffix)
    if named != "jsonl" and _JSON.match(text):
        raise UserError(
            f"{path}: begins like JSON; say --format jsonl if it holds one object a line, or "
            f"--format {named or 'text'} if it is that nevertheless"
        )
    if named in (None, "text"):
        if _MARKUP.match(text):
            raise UserError(
                f"{path}: begins like XML or HTML; extract its text, or say --format text if the "
                "mark-up is to be learnt"
            )
        if (columns := _columns(text, fields)) is not None:
            raise UserError(
                f"{path}: begins like a table of {columns.upper()}; say --format {columns}, or "
                "--format text if it is text nevertheless"
            )


def _columns(text: str, fields: Sequence[str]) -> Literal["csv", "tsv"] | None:
    """Whether a text begins like a table of CSV or TSV; None if like neither.

    A header names the fields, barely or above a row of as many cells; or it holds bare names above
    such a row; or cells stand between tabs in two rows alike.
    """
    lines = text.lstrip("\n").split("\n")[:2]
    forms: tuple[tuple[Literal["csv", "tsv"], str], ...] = (("tsv", "\t"), ("csv", ","))
    for form, separator in forms:
        header, second = (_cells(line, separator) for line in [*lines, ""][:2])
        holds_fields = set(fields) <= set(header)
        # What pandas writes has a nameless first column.
        bare = all(re.fullmatch(r"\w[\w.-]*", cell) for cell in header[not header[0] :])
        tabs = separator == "\t" and all(header) and all(second)
        if len(header) > 1 and (
            (holds_fields and bare)
            or (len(header) == len(second) and (holds_fields or bare or tabs))
        ):
            return form
    return None


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r")], delimiter=separator), None) or [""]
    except csv.Error:
        return [""]


def _refuse_spread_json(path: Path, text: str) -> None:
    """UserError for JSON that is an array or spread over lines, not one object a line."""
    first, _, rest = text.strip().partition("\n")
    first = first.strip()
    opens = first.startswith("[") and not first.endswith("]")
    opens |= first.startswith("{") and first.endswith(("{", "[", ",", ":"))
    if rest and opens:
        raise UserError(
            f"{path}: holds JSON over several lines, not one object a line; convert it, e.g. with "
            "jq -c '.[]' (an array) or jq -c . (objects)"
        )
