"""Every key of a configuration is listed with its type, its default and what it means."""

import dataclasses
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from configs.documentation import Key, field_texts, keys, listing, type_text, without_markup
from configs.load import load, to_plain
from pretrain.__main__ import main
from pretrain.config import RunConfig
from slurm.settings import Settings
from tools.compare.config import CompareConfig


@pytest.mark.parametrize("schema", [RunConfig, Settings, CompareConfig])
def test_every_key_is_documented(schema: type) -> None:
    assert [key for key in keys(schema) if not key.meaning] == []


@pytest.mark.parametrize("schema", [RunConfig, Settings, CompareConfig])
def test_no_meaning_holds_two_keys(schema: type) -> None:
    """A second entry on the line of the first would be read as part of its text."""
    names = {key.name.rpartition(".")[2] for key in keys(schema)}
    assert [
        (key.name, name) for key in keys(schema) for name in names if f". {name}: " in key.meaning
    ] == []


def test_no_docstring_names_a_field_that_is_not_there() -> None:
    def blocks(schema: type) -> list[type]:
        hints = typing.get_type_hints(schema).values()
        inner = [t for h in hints for t in (h, *typing.get_args(h)) if dataclasses.is_dataclass(t)]
        return [schema, *(b for i in inner for b in blocks(typing.cast(type, i)))]

    for schema in [*blocks(RunConfig), Settings, *blocks(CompareConfig)]:
        unknown = field_texts(schema).keys() - {f.name for f in dataclasses.fields(schema)}
        assert not unknown, (schema, unknown)


def leaves(block: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for name, value in block.items():
        inner = leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else set()
        found |= inner or {f"{prefix}{name}"}
    return found


@pytest.mark.parametrize("file", ["tiny.yaml", "genie/demo.yaml"])
def test_what_is_listed_is_what_a_configuration_has(root: Path, file: str) -> None:
    config = load(RunConfig, [root / "configs" / file])
    plain = to_plain(config)
    chosen = {f"{block}.name={plain[block]['name']}" for block in ("objective", "model")}
    if isinstance(schedule := plain["objective"].get("schedule"), dict):
        chosen.add(f"objective.schedule.name={schedule['name']}")
    listed = {key.name for key in keys(RunConfig) if not key.when or key.when in chosen}
    assert leaves(plain) == listed


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Within.

    Args:
        depth: how deep.
    """

    depth: int = 2


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A block.

    Args:
        name: ``fast`` or
            ``slow``, as :func:`model.speed.of` says: it matters.
        low, high: of the range.
        sizes: of each.

    Raises:
        ValueError: never.
    """

    name: Literal["fast", "slow"] = "fast"
    low: float | None = None
    high: tuple[float, float] = (0.5, 1e-9)
    sizes: tuple[int, ...]
    inner: Inner = Inner()
    rest: dict[str, str | int] = dataclasses.field(default_factory=dict)
    more: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def test_types_defaults_and_meanings_are_words() -> None:
    assert list(keys(Outer)) == [
        Key(
            name="name", type="fast | slow", default="fast",
            meaning="fast or slow, as of says: it matters.",
        ),
        Key(name="low", type="number or none", default="none", meaning="of the range."),
        Key(name="high", type="list of 2 numbers", default="[0.5, 1e-09]", meaning="of the range."),
        Key(name="sizes", type="list of integers", default=None, meaning="of each."),
        Key(name="inner.depth", type="integer", default="2", meaning="how deep."),
        Key(name="rest", type="block of text or integer", default="{}", meaning=""),
        Key(name="more", type="block of blocks of settings", default="{}", meaning=""),
    ]  # fmt: skip


def test_a_listing_can_be_of_some_keys_only() -> None:
    text = listing(RunConfig, ["ema", "data.corpus"])
    heads = [line.split("  ")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert heads == ["data.corpus", "ema.decay"]
    assert "number; default 0.9999" in text


def test_marks_of_markup_are_taken_off() -> None:
    assert without_markup("``a`` and `b`, :func:`c.d`, it's") == "a and b, d, it's"
    assert type_text(bool | None) == "true | false or none"


def test_the_command_lists_them(capsys) -> None:
    assert main(["--keys"]) == 0
    text = capsys.readouterr().out
    assert "`" not in text
    for line in (
        "steps  (integer; needed)",
        "optim.schedule.name  (constant | cosine | wsd; default constant)",
        "with objective.schedule.name=cosine",
        "parallel.tensor  (integer; default 1)",
    ):
        assert line in text.splitlines()


def test_a_key_that_is_not_there_is_an_error(capsys) -> None:
    for words, said in {
        ("optimizer",): "no key is, or begins with, 'optimizer'",
        ("lr",): "did you mean 'optim.lr'?",
        ("optim.lr=3",): "did you mean 'optim.lr'?",
        ("optim", "emma"): "'emma' .*; did you mean 'ema'",
        ("configs/tiny.yaml",): "configs/tiny.yaml is no key",
    }.items():
        assert main(["--keys", *words]) == 2
        printed = capsys.readouterr()
        assert re.search(said.replace("?", r"\?"), printed.err)
        assert printed.out == ""
