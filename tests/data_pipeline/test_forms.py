"""A file is read as what it is, or refused by name; never trained on as something else."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from configs.errors import UserError
from data_pipeline.__main__ import main
from data_pipeline.shards import open_split
from data_pipeline.sources import Documents

TEXTS = ['hello, "world"', "two\nlines", "caf\u00e9"]

JSONL = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS).encode()

CSV = 'id,text\n1,"hello, ""world"""\n2,"two\nlines"\n3,caf\u00e9\n'.encode()

TSV = (
    CSV.replace(b"d,t", b"d\tt")
    .replace(b"1,", b"1\t")
    .replace(b"2,", b"2\t")
    .replace(b"3,", b"3\t")
)

PRETTY = json.dumps({"text": "a", "id": 1}, indent=1).encode()

ARRAY = json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode()

COMPRESSED = {
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


def table_bytes(form: str) -> bytes:
    table = pyarrow.table({"id": [1, 2, 3], "text": TEXTS})
    out = io.BytesIO()
    if form == "parquet":
        pyarrow.parquet.write_table(table, out)
    elif form == "grouped":
        with pyarrow.parquet.ParquetWriter(out, table.schema) as groups:
            groups.write_table(table.slice(0, 0))
            groups.write_table(table)
    elif form == "feather":
        pyarrow.feather.write_feather(table, out)
    else:
        with pyarrow.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "text")
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return out.getvalue()


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


READ = {
    "a.ndjson": JSONL, "A.JSONL": JSONL, "a.jsonlines": JSONL, "a.Json": JSONL,
    "bom.jsonl": b"\xef\xbb\xbf" + JSONL, "bom.csv": b"\xef\xbb\xbf" + CSV,
    "a.csv": CSV, "A.CSV": CSV, "a.tsv": TSV, "a.tab": TSV,
    "crlf.csv": CSV.replace(b"\n2", b"\r\n2"),
    "a.parquet": table_bytes("parquet"), "a.txt": table_bytes("parquet"),
    "a.arrow": table_bytes("stream"), "b.arrow": table_bytes("feather"),
    "a.feather": table_bytes("feather"), "part-00000": table_bytes("stream"),
    "A.JSON.GZ": gzip.compress(JSONL), "named-plain.jsonl": lzma.compress(JSONL),
    "two-parts.jsonl.gz": gzip.compress(JSONL[:9]) + gzip.compress(JSONL[9:]) + bytes(20),
    "zero.jsonl.gz": gzip.compress(JSONL) + gzip.compress(b""),
    "skipped.jsonl.zst": b"\x50\x2a\x4d\x18\1\0\0\0!" + zstandard.compress(JSONL),
    "first-group-empty.parquet": table_bytes("grouped"),
    **{f"a.jsonl.{suffix}": pack(JSONL) for suffix, pack in COMPRESSED.items()},
    **{f"a.csv.{suffix.upper()}": pack(CSV) for suffix, pack in COMPRESSED.items()},
    **{f"two.jsonl.{s}": pack(JSONL[:9]) + pack(JSONL[9:]) for s, pack in COMPRESSED.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_as_what_it_is(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, READ[name])
    assert list(Documents([path])) == TEXTS
    if "csv" in name.lower() or "tsv" in name:
        pairs = [text for number, text in enumerate(TEXTS, 1) for text in (str(number), text)]
        assert list(Documents([path], fields=["id", "text"])) == pairs


TEXT = {
    "a.md": b"# title\n", "wiki.train.tokens": b" = title = \n", "part-00000": b"words\n",
    "a.txt": b"ORCs, BZh9 and PAR1\n", "b.txt": b'"speech" he said\n', "c.txt": b"[1] a note\n",
    "d.txt": b"{x} is a set\n", "e.txt": b"text, and commas\n", "f.py": b"x = {}\n",
    "i.txt": b"Yes, no\nand, well\n", "j.c": b"\tint x;\n\tint y;\n",
    "k.txt": b"one,two\nno more\n",
    "l.txt": b"a\tb\nno more\n", "m.txt": b"{'tis\n", "n.txt": b"['s\n",
    "g.txt": b"BZh91\n", "h.txt": b"PK is a name\n", "v1.2": b"words\n",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_text_stays_text(name: str, tmp_path: Path) -> None:
    expected = TEXT[name].decode().splitlines()
    assert list(Documents([write(tmp_path, name, TEXT[name])])) == expected
    for suffix, pack in COMPRESSED.items():
        path = write(tmp_path, f"{name}.{suffix}", pack(TEXT[name]))
        assert list(Documents([path])) == expected


REFUSED = {
    "part-00000": (JSONL, "--format jsonl"),
    "a.txt": (JSONL, "--format jsonl"),
    "a.csv": (JSONL, "--format jsonl"),
    "nameless": (ARRAY, "--format jsonl"),
    "strings": (b'["a", "b"]\n', "--format jsonl"),
    "objects.gz": (gzip.compress(JSONL), "--format jsonl"),
    "array.json": (ARRAY, "jq"),
    "begun.json": (b'[{"text": "a"},\n{"text": "b"}]\n', "jq"),
    "spread.jsonl": (b'{"text": "a",\n"id": 1}\n{"text": "b"}\n', "jq"),
    "lists": (b'[["a", "b"]]\n', "--format jsonl"),
    "python.txt": (b"{'text': 'a'}\n", "--format jsonl"),
    "line.json": (json.dumps([{"text": "a"}]).encode(), "jq"),
    "pretty.json": (PRETTY, "jq"),
    "table.txt": (CSV, "--format csv"),
    "table": (TSV, "--format tsv"),
    "other-names": (CSV.replace(b"text", b"content"), "--format csv"),
    "quoted-names": (b'"id","content"\n1,a\n', "--format csv"),
    "pandas.txt": (b",text\n0,a\n", "--format csv"),
    "spaced-names": (b"my id,text\n1,a\n", "--format csv"),
    "no-names": (b"Go.\tGeh.\nGo on.\tWeiter!\n", "--format tsv"),
    "pointer.txt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "pointer.parquet": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "empty.jsonl.gz": (b"", "is empty"),
    "page.html": (b"<p>words", "--format text"),
    "page": (b"<!DOCTYPE html><p>words", "--format text"),
    "a.xml": (b"<?xml version='1.0'?>", "--format text"),
    "a.warc": (b"WARC/1.0\r\n", "WARC"),
    "a.xyz": (bytes(range(1, 256)), "is no text"),
    "zeros": (b"a\0b\0\n\0", "is no text"),
    "a.tar": (tarred(), "tar archive"),
    "a.tgz": (gzip.compress(tarred()), "tar archive"),
    "a.zip": (zipped(), "zip archive"),
    "zip.txt": (zipped(), "zip archive"),
    "a.pkl": (pickle.dumps([1]), "pickle"),
    "a.h5": (b"\x89HDF\r\n\x1a\n1234", "HDF5"),
    "utf16.txt": ("words".encode("utf-16"), "iconv -f UTF-16"),
    "utf16.jsonl": ("words".encode("utf-16-be"), "is no text"),
    "utf32.txt": ("words".encode("utf-32"), "iconv -f UTF-32"),
    "a.lz4": (b"\x04\x22\x4d\x18rest", "lz4"),
    "twice.gz": (gzip.compress(gzip.compress(JSONL)), "twice"),
    "a.parquet.zst": (COMPRESSED["zst"](table_bytes("parquet")), "inside a compressed file"),
    "false.parquet": (b"words", "not a Parquet file"),
    "false.arrow": (b"words", "not an Arrow file"),
    "false.jsonl.zst": (JSONL, "named as zstd"),
    "twice.csv": (b"text,text\na,b\n", "names a column twice"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_whatever_may_be_skipped(name: str, tmp_path: Path) -> None:
    content, told = REFUSED[name]
    path = write(tmp_path, name, content)
    first = write(tmp_path, "first.txt", b"words\n")
    for skip_bad in (False, True):
        found = []
        with pytest.raises(UserError, match=path.name) as caught:
            found += Documents([path, path], skip_bad=skip_bad)
        if name != "line.json" or not skip_bad:
            assert told in str(caught.value)
    if told not in ("jq", "names a column twice"):
        with pytest.raises(UserError, match=path.name):
            next(iter(Documents([first, path])))


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    assert list(Documents([write(tmp_path, "part-0", JSONL)], form="jsonl")) == TEXTS
    assert list(Documents([write(tmp_path, "a.txt", CSV)], form="csv")) == TEXTS
    assert list(Documents([write(tmp_path, "b.txt", TSV)], form="tsv")) == TEXTS
    for name, content in (("c.jsonl", JSONL), ("d.csv", b"text,b\n"), ("e.html", b"<p>\n")):
        lines = content.decode().splitlines()
        assert list(Documents([write(tmp_path, name, content)], form="text")) == lines
    with pytest.raises(UserError, match="is Parquet, not text"):
        list(Documents([write(tmp_path, "f", table_bytes("parquet"))], form="text"))
    with pytest.raises(UserError, match="not a Parquet file"):
        list(Documents([tmp_path / "c.jsonl"], form="parquet"))


BAD_ROWS = {
    b"4\n": "1 cells, but the header names 2",
    b"4,a,b\n": "3 cells, but the header names 2",
    b"4,\xff\n": "not UTF-8",
    b'4,"a"b\n': "not a row of a table",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_named_or_counted(row: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", CSV + row + b"\n5,last\n")
    with pytest.raises(UserError, match=rf"a\.csv:6: {BAD_ROWS[row]}.*--skip-bad"):
        list(Documents([path]))
    documents = Documents([path], skip_bad=True)
    assert list(documents) == [*TEXTS, "last"]
    assert documents.skipped == {"empty": 1, "bad": 1}


def test_a_mark_that_quotes_nothing_joins_no_rows(tmp_path: Path) -> None:
    """Most tables of tabs know no quoting; CSV may hold such cells."""
    rows = 'id\ttext\n1\t"Well\n2\tno\n3\tbye"\n4\tend\n'
    path = write(tmp_path, "a.tsv", rows.encode())
    with pytest.raises(UserError, match=r"a\.tsv:2: a quotation mark joins rows in field 'text'"):
        list(Documents([path]))
    assert list(Documents([path], skip_bad=True)) == ["end"]
    path = write(tmp_path, "b.tsv", b'text\tid\n"Well\t1\nno\t2\nbye"\t3\nend\t4\n')
    assert list(Documents([path], skip_bad=True)) == ["end"]
    path = write(tmp_path, "a.csv", rows.replace("\t", ",").encode())
    assert list(Documents([path])) == ["Well\n2,no\n3,bye", "end"]
    path = write(tmp_path, "one.tsv", b'text\n"a\nb"\n')
    assert list(Documents([path])) == ["a\nb"]


def test_a_bad_row_is_named_by_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b'id,text\n1,"two\nlines"\n2,"not closed\n3,c\n')
    with pytest.raises(UserError, match=r"a\.csv:4: not a row of a table"):
        list(Documents([path]))


def test_a_directory_names_what_is_likely_meant(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    (saved / "train").mkdir(parents=True)
    write(saved, "dataset_dict.json", b'{"splits": ["train"]}')
    write(saved / "train", "data-00000-of-00001.arrow", table_bytes("stream"))
    with pytest.raises(UserError, match=r"is a directory; .*saved/train/\*\.arrow'"):
        Documents([saved])
    write(saved, "A.JSONL.Gz", bytes(10_000))
    with pytest.raises(UserError, match=r"saved/\*\.JSONL\.Gz'"):
        Documents([saved])


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a.arrow", "a.parquet"):
        path = write(tmp_path, name, READ[name])
        with pytest.raises(UserError, match=r"no field 'body' \(fields: id, text\)"):
            list(Documents([path], fields=["body"]))


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(JSONL,))
    writer.start()
    assert list(Documents([path])) == TEXTS
    writer.join()


@pytest.mark.parametrize("form", [None, "jsonl"])
@pytest.mark.parametrize(
    "content",
    [JSONL, gzip.compress(JSONL), table_bytes("parquet")],
    ids=["plain", "gzip", "parquet"],
)
def test_a_pipe_that_comes_in_drops_is_known_all_the_same(
    content: bytes, form, tmp_path: Path
) -> None:
    """A form is known by more bytes than the first that were written."""
    reading, writing = os.pipe()

    def drop() -> None:
        for part in (content[:1], content[1:]):
            os.write(writing, part)
            time.sleep(0.05)
        os.close(writing)

    writer = threading.Thread(target=drop)
    writer.start()
    found, told = [], ""
    try:
        found += Documents([f"/dev/fd/{reading}"], form=form)
    except UserError as error:
        told = str(error)
    writer.join()
    os.close(reading)
    if content.startswith(b"PAR1"):
        assert ("is read from files only" if form is None else "is Parquet, not") in told
    else:
        assert found == (TEXTS if form == "jsonl" else [])
        assert form == "jsonl" or "--format jsonl" in told


def test_on_the_command_line(own_corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "part-00000", JSONL)
    words = ["tokenize", str(path), "--corpus", str(own_corpus), "--split", "new"]
    assert main(words) == 2
    assert main([*words, "--skip-bad"]) == 2
    assert not (own_corpus / "new").exists()
    assert main([*words, "--format", "jsonl"]) == 0
    assert open_split(own_corpus, "new").num_documents == 3
    path = write(tmp_path, "pairs.tsv.zst", COMPRESSED["zst"](TSV))
    words = ["tokenize", str(path), "--corpus", str(own_corpus), "--split", "pairs"]
    assert main([*words, "--pairs", "id", "text"]) == 0
    assert open_split(own_corpus, "pairs").manifest.pairs
