"""Files and words in YAML: numbers, text, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from schemas import Config, Write

from configs.errors import UserError
from configs.load import (
    load,
    parse_override,
    read_yaml,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("3E4", 3e4),
        ("1e+3", 1e3),
        ("-2e-3", -2e-3),
        ("1.5e3", 1.5e3),
        ("1_0e3", 1e4),
        ("0.5", 0.5),
        ("3.", 3.0),
    ],
)
def test_numbers_with_an_exponent_are_floats(write: Write, text: str, value: float) -> None:
    read = read_yaml(write(f"a: {text}"))["a"]
    assert type(read) is float
    assert read == value
    assert parse_override(f"a={text}") == {"a": value}


@pytest.mark.parametrize("text", ["3e", "e4", "3e4x", "v3e4", "'3e-4'"])
def test_what_only_resembles_a_number_stays_text(write: Write, text: str) -> None:
    assert read_yaml(write(f"a: {text}")) == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "key", "first", "second"),
    [
        ("seed: 1\nname: x\nseed: 2\n", "seed", 1, 3),
        ("optim:\n  lr: 1\n  decay: 0\n  steps: 1\n  lr: 1\n", "lr", 2, 5),
        ("a: [{b: 1,\n b: 2}]\n", "b", 1, 2),
        ("1: x\n'1': y\n", "1", 1, 2),
    ],
)
def test_duplicate_keys_are_refused_with_both_lines(
    write: Write, text: str, key: str, first: int, second: int
) -> None:
    path = write(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert f"duplicate key '{key}' (first on line {first})" in message
    assert f"line {second}," in message
    assert str(path) in message


def test_the_same_key_in_different_blocks_is_no_duplicate(write: Write) -> None:
    assert read_yaml(write("a: {x: 1}\nb: {x: 2}")) == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(UserError) as caught:
        load(Config, [path])
    assert str(path) in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize(("text", "kind"), [("- 1\n- 2", "list"), ("words", "str"), ("3", "int")])
def test_yaml_that_is_no_mapping_is_refused(write: Write, text: str, kind: str) -> None:
    path = write(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: expected 'key: value' lines")
    assert kind in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_sets_nothing(write: Write, text: str) -> None:
    assert read_yaml(write(text)) == {}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: !!python/name:os.system", "a: {b"])
def test_malformed_or_unsafe_yaml_is_refused(write: Write, text: str) -> None:
    path = write(text)
    with pytest.raises(UserError, match="is not valid YAML") as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["2020-01-01", "1:30", "on", "No", "1.2.3", "0b11", "0o9", "=", "_1"]
)
def test_what_yaml_1_1_takes_for_something_else_is_text(write: Write, text: str) -> None:
    assert load(Config, [write(f"seed: 1\nname: {text}")]).name == text
    assert load(Config, [write(f"seed: 1\nname: '{text}'")]).name == text


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("a=3", {"a": 3}),
        ("a.b.c=3e-4", {"a": {"b": {"c": 3e-4}}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
        ("a=[1, x]", {"a": [1, "x"]}),
        ("a={b: true}", {"a": {"b": True}}),
        ("a='3'", {"a": "3"}),
    ],
)
def test_a_word_is_a_key_and_a_yaml_value(word: str, data: dict[str, Any]) -> None:
    assert parse_override(word) == data


@pytest.mark.parametrize("word", ["a", "", "=3", "a..b=3", ".a=3", "a.=3"])
def test_a_word_without_key_or_value_is_refused(word: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(word)
    assert str(caught.value).startswith(f"'{word}': expected key=value")


@pytest.mark.parametrize("word", ["a=[1", "a={b: 1, b: 2}"])
def test_a_word_with_a_malformed_value_is_refused(word: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(word)
    assert str(caught.value).startswith(f"'{word}': the value is not valid YAML")
