import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from data_pipeline.sources import Documents

ODD = "  a\x0bb\x0cc\x85d\u2028e\u2029f\rg\x1ch \t"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_line_is_a_document_to_the_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", f"{ODD}\nsecond\r\n\n  \nlast")
    documents = Documents([path])
    assert list(documents) == [ODD, "second", "last"]
    assert documents.skipped == {"empty": 2, "bad": 0}
    assert list(documents) == [ODD, "second", "last"]
    assert documents.skipped == {"empty": 2, "bad": 0}, "counts are those of one pass"


def test_a_very_long_line_is_one_document(tmp_path: Path) -> None:
    line = "x y" * 5_000_000
    assert list(Documents([write(tmp_path / "a.txt", line + "\nz")])) == [line, "z"]


def test_paragraphs_keep_their_inside(tmp_path: Path) -> None:
    text = f"\n\n  one\r\n{ODD}\n \t\nthree\n\n\nfour\n"
    path = write(tmp_path / "a.txt", text)
    expected = [f"  one\r\n{ODD}", "three", "four"]
    assert list(Documents([path], unit="paragraph")) == expected


def test_a_file_is_a_document_without_its_byte_order_mark(tmp_path: Path) -> None:
    text = f"one\r\n\r{ODD}\n\n"
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + text.encode())
    assert list(Documents([path], unit="file")) == [text]


@given(texts=st.lists(st.text().filter(str.strip), min_size=1, max_size=5))
def test_json_lines_give_back_any_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes("\n".join(lines).encode())
    assert list(Documents([path])) == texts


def test_compressed_files_and_patterns(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / f"{name}.jsonl.gz").write_bytes(
            gzip.compress(b'{"body": "%b"}' % name.encode())
        )
    write(tmp_path / "c.txt.gz", gzip.compress(b"c\nd"))
    assert list(Documents([str(tmp_path / "*.jsonl.gz")], fields=["body"])) == ["a", "b"]
    assert list(Documents([tmp_path / "c.txt.gz"])) == ["c", "d"]


def test_parquet(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"text": [ODD, None, "b"]})
    table.to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(UserError, match=r"a\.parquet: row 1: .* is NoneType, not a string"):
        list(Documents([tmp_path / "a.parquet"]))
    documents = Documents([tmp_path / "a.parquet"], skip_bad=True)
    assert list(documents) == [ODD, "b"]
    assert documents.skipped["bad"] == 1
    with pytest.raises(UserError, match="not a Parquet file"):
        list(Documents([write(tmp_path / "b.parquet", "no")]))


BAD_LINES = {
    "{": "not a JSON object",
    "[1]": "not a JSON object .but a list",
    '{"title": "x", "body": "y"}': r"no field 'text' \(fields: title, body\).*--field",
    '{"text": 3}': "field 'text' is int, not a string",
    '{"text": null}': "field 'text' is NoneType, not a string",
    r'{"text": "\ud800"}': "half of a surrogate pair",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_or_counted(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "good"}\n' + line + "\n")
    with pytest.raises(UserError, match=f"a.jsonl:2: .*{BAD_LINES[line]}.*; --skip-bad counts"):
        list(Documents([path]))
    documents = Documents([path], skip_bad=True)
    assert list(documents) == ["good"]
    assert documents.skipped == {"empty": 0, "bad": 1}


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"good\nb\xffd\n")
    with pytest.raises(UserError, match=r"a.txt:2: not UTF-8 .*--skip-bad"):
        list(Documents([path]))
    assert list(Documents([path], skip_bad=True)) == ["good"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Documents([tmp_path / "absent.txt"])
    with pytest.raises(UserError, match="no file matches"):
        Documents([str(tmp_path / "*.txt")])
    with pytest.raises(UserError, match="is a directory"):
        Documents([tmp_path])
    with pytest.raises(UserError, match="no input files"):
        Documents([])
    with pytest.raises(UserError, match=r"no document in .*\(2 empty, 0 bad\)"):
        list(Documents([write(tmp_path / "empty.txt", "\n \n")]))
    cut = gzip.compress(b"line\n" * 1000)[:-20]
    with pytest.raises(UserError, match=r"cut.txt.gz: cannot be read"):
        list(Documents([write(tmp_path / "cut.txt.gz", cut)]))
    with pytest.raises(UserError, match=r"no.gz: cannot be read"):
        list(Documents([write(tmp_path / "no.gz", "plain")]))
