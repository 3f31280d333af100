"""Words stay words and numbers numbers; what is no configuration is refused in a line."""

import errno
import os
import string
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import UserError
from configs.load import MOST_BYTES, parse_override, read_yaml
from configs.yaml_text import Dumper, parse

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("1:00:00", "1:00:00"),
        ("on", "on"),
        ("No", "No"),
        ("y", "y"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01 10:00:00", "2020-01-01 10:00:00"),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("0b11", "0b11"),
        ("1_000", 1000),
        ("1__0", "1__0"),
        ("_1", "_1"),
        ("+12", 12),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        (".5", 0.5),
        ("3e-4", 3e-4),
        ("TRUE", True),
        ("~", None),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"a: {text}\n")
    for read in (read_yaml(file)["a"], parse_override(f"a={text}")["a"]):
        assert read == value
        assert type(read) is type(value)


def test_keys_are_words_as_they_are_written() -> None:
    read = parse("on: 1\n0x10: 2\n2020-01-01: 3\ntrue: 4\n'null': 5", is_file=True)
    assert read == {"on": 1, "0x10": 2, "2020-01-01": 3, "true": 4, "null": 5}


def test_an_alias_is_the_value_again() -> None:
    assert parse("a: &x {b: [1]}\nc: *x", is_file=True) == {"a": {"b": [1]}, "c": {"b": [1]}}


REFUSED = {
    "<<: {a: 1}": r"line 1, column 1: merges \('<<'\) are not read",
    "a: &x {b: 1}\nc:\n  <<: *x": r"line 3, column 3: merges",
    "a: &a [*a]": "stands for a block that holds it",
    "a: &a {b: *a}": "stands for a block that holds it",
    LAUGHS: "more than 10,000 values",
    "a: " + "[" * 5000: "deep",
    "a: " + "[" * 40 + "]" * 40: "deep",
    "a: " + "{a: " * 40 + "1" + "}" * 40: "deep",
    "? [1]\n: 2": "a key must be a word",
    "? {a: 1}\n: 2": "a key must be a word",
    "a: 1\na: 2": r"line 2, column 1: duplicate key 'a' \(first on line 1\)",
    "a:\n\tb: 1": r"line 2, column 1: .*indent with spaces",
    "a: 1\n---\nb: 2": "a second document begins here",
    "a: !!python/object/apply:os.system [x]": "tag '!!python/object/apply:os.system'",
    "a: !!timestamp 2020-01-01": "tag '!!timestamp'",
    "a: !mine {b: 1}": "tag '!mine'",
    "!!set {a}": "tag '!!set'",
    "a: !!int x": "'x' is no int",
    'a: "\\ud800"': "half a surrogate pair",
    'a: "\\0"': "zero byte",
    'a: "\\UFFFFFFFF"': "out of range",
    "a: " + "9" * 5000: "a number of 5,000 characters",
    "a: 1\nb: \x00": r"line 2: character #x0000 is not allowed",
    "a: *b": "undefined alias 'b'",
    "a: 1\nb: [1": r"line 2, column 6",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_means_nothing_here_is_refused_in_a_line(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"a.yaml is not valid YAML: .*{message}") as caught:
        read_yaml(file)
    assert "unicode string" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_value_of_a_word_names_the_word() -> None:
    with pytest.raises(
        UserError, match=r"^'optim.lr=&a \[\*a\]': the value is not valid YAML: an "
    ):
        parse_override("optim.lr=&a [*a]")
    with pytest.raises(UserError, match=r"'a=.*x': the value is not valid YAML: character #x"):
        parse_override("a=\udcffx")
    with pytest.raises(UserError, match="the key is too long"):
        parse_override("a." * 3000 + "b=1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: caf\xe9\n", "line 2: the text is not UTF-8 .byte 0xe9.; save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), "line 1: the text is UTF-16"),
        (bytes(range(256)), "not UTF-8"),
        (b"\x00" * 100, "character #x0000"),
        (b"a: 1\n" * MOST_BYTES, "it is no configuration"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_yaml(file)


def test_a_byte_order_mark_of_utf_8_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(file) == {"a": 1, "b": 2}


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="no regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match=r"it is a directory; there are: .*pipe\.yaml"):
        read_yaml(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        read_yaml(Path("a\0b.yaml"))
    with pytest.raises(UserError, match="File name too long"):
        read_yaml(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="Not a directory"):
        read_yaml(tmp_path / "pipe.yaml" / "a.yaml")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1")
    file.chmod(0)

    def refuse(path: Path, *args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    if os.geteuid() == 0:  # who may read everything
        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "read_text", refuse)
        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        read_yaml(file)


TEXTS = st.one_of(
    st.text(alphabet="0123456789_+-.eExXoO:~", max_size=8),
    st.text(alphabet=string.printable, max_size=12),
    st.text(max_size=12).filter(lambda text: text.isprintable()),
    st.sampled_from(["on", "No", "null", "~", "<<", "=", "1:30", "010", "08", "1_0", ".inf", "y"]),
)
PLAIN = st.recursive(
    TEXTS | st.booleans() | st.none() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=PLAIN)
def test_what_is_written_reads_back_here_and_elsewhere(data: object) -> None:
    text = yaml.dump({"a": data}, Dumper=Dumper, allow_unicode=True)
    assert parse(text, is_file=True) == {"a": data}
    assert yaml.safe_load(text) == {"a": data}


def test_reading_needs_no_more_than_pythons_usual_depth() -> None:
    before = sys.getrecursionlimit()
    parse("a: " + "[" * 30 + "]" * 30, is_file=True)
    assert sys.getrecursionlimit() == before
