"""What a wrong word was probably meant to be."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

_KEY = re.compile(r"[a-z_]\w*(?:\.(?!ya?ml$)[a-z_]\w*)*")
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def nearest(word: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """A question after the nearest known word; nothing where none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'?" if close else ""


def for_key(word: str, here: Sequence[str], everywhere: Iterable[str]) -> str:
    """For a key that its block does not have: one of its name elsewhere, or one like it."""
    by_name: dict[str, list[str]] = {}
    for key in everywhere:
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    if word in by_name:
        return _any_of(by_name[word])
    if guess := nearest(word, here):
        return guess
    close = difflib.get_close_matches(word, list(by_name), n=1, cutoff=0.7)
    return _any_of(by_name[close[0]]) if close else "known here: " + ", ".join(here)


def _any_of(keys: Sequence[str]) -> str:
    *others, last = [f"'{key}'" for key in keys]
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def short(value: object) -> str:
    """A value in a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a deep list
        return f"a long {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def plain(word: str) -> str:
    """A word in a message, without what no terminal can show."""
    shown = word.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown):,} characters)"


def of_value(error: ValidationError, data: Any) -> Iterator[tuple[str, str]]:
    """Where within a value pydantic found something wrong, and what is wrong there.

    A union tells of each of its members: these messages become one.
    """
    by_place: dict[tuple[Any, ...], list[Any]] = {}
    for item in error.errors(include_url=False):
        place = _inside(item["loc"], data)
        by_place.setdefault(place, []).append(item)
    for place, items in by_place.items():
        texts = dict.fromkeys(item["msg"][0].lower() + item["msg"][1:] for item in items)
        given = items[0]["input"]
        message = f"{', or '.join(texts)}, not {short(given)}"
        yield ".".join(map(str, place)), message + _remedy(items[0]["type"], given)


def _inside(loc: Sequence[Any], data: Any) -> tuple[Any, ...]:
    """As much of a place as leads into the data; the rest names members of unions."""
    place: list[Any] = []
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        place.append(part)
    return tuple(place)


def _remedy(kind: str, given: Any) -> str:
    if kind.startswith("bool") and str(given).lower() in _SWITCHES:
        return f"; write {_SWITCHES[str(given).lower()]}"
    if kind.startswith("int") and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}"
    return ""


def files_near(path: Path) -> str:
    """YAML files that a missing one was probably meant to be: beside it, or shipped ones."""
    beside: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        beside = [str(file) for file in sorted(path.parent.glob("*.y*ml"))]
    shipped = [str(file) for file in sorted(Path("configs").rglob("*.yaml"))]
    there = list(dict.fromkeys([*beside, *shipped]))
    by_stem: dict[str, list[str]] = {}
    for name in there:
        by_stem.setdefault(Path(name).stem, []).append(name)
    for stem in difflib.get_close_matches(path.stem, list(by_stem), n=1, cutoff=0.6):
        return f"; {_any_of(by_stem[stem][:3])}"
    if _KEY.fullmatch(str(path)):
        return f"; a setting is written {path}=VALUE"
    return f"; there are: {', '.join(beside[:5])}" if beside else ""
