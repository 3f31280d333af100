"""Suggestions for misspelt keys, values and files: "did you mean ...?"."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

_KEY = re.compile(r"[a-z_]\w*(?:\.(?!ya?ml$)[a-z_]\w*)*")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+")
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}

_ELSEWHERE = {
    "batch_size": "global_batch", "learning_rate": "optim.lr", "max_steps": "steps",
    "hidden_size": "model.width", "d_model": "model.width", "n_embd": "model.width",
    "num_hidden_layers": "model.num_layers", "num_attention_heads": "model.num_heads",
    "seq_len": "data.sequence_length", "block_size": "data.sequence_length",
    "max_length": "data.sequence_length", "context_length": "data.sequence_length",
    "warmup_steps": "optim.schedule.warmup", "grad_clip": "optim.clip",
    "max_grad_norm": "optim.clip", "output_dir": "run_dir", "out_dir": "run_dir",
    "init_from": "fork_from", "dtype": "precision", "save_every": "checkpoint.every",
    "log_every": "log.every", "eval_every": "eval.every", "dataset": "data.corpus",
    "micro_batch_size": "parallel.micro_batch",
}  # fmt: skip
"""Names of other frameworks for keys of ours."""


def nearest(word: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """``did you mean '...'?`` with the closest known word; empty if none is close."""
    close = _close(word, known, cutoff)
    return f"did you mean '{close}'?" if close else ""


def _close(word: str, known: Iterable[str], cutoff: float) -> str:
    """The closest known word, ignoring case; empty if none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else ""


def for_key(word: str, here: Sequence[str], everywhere: Iterable[str]) -> str:
    """Suggest a key for an unknown one: the same name in another block, or a similar one."""
    by_name: dict[str, list[str]] = {}
    for key in everywhere:
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    if word.lower() in by_name:
        return _any_of(by_name[word.lower()])
    elsewhere = _ELSEWHERE.get(word.lower(), "")
    if elsewhere in by_name.get(elsewhere.rpartition(".")[2], []):
        return _any_of([elsewhere])
    if guess := nearest(word, here):
        return guess
    close = _close(word, by_name, 0.7)
    return _any_of(by_name[close]) if close else "known here: " + ", ".join(here)


def _any_of(keys: Sequence[str]) -> str:
    *others, last = [f"'{key}'" for key in keys]
    return f"did you mean {', '.join(others)} or {last}?" if others else f"did you mean {last}?"


def short(value: object) -> str:
    """Format a value for a message, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a deep list
        return f"a long {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def plain(word: str) -> str:
    """Format a word for a message, without unprintable characters."""
    shown = word.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown):,} characters)"


def of_value(error: ValidationError, data: Any) -> Iterator[tuple[str, str]]:
    """Where within a value pydantic found something wrong, and what is wrong there.

    The messages of a union's members are joined into one.
    """
    by_place: dict[tuple[Any, ...], list[Any]] = {}
    for item in error.errors(include_url=False):
        place = _inside(item["loc"], data)
        by_place.setdefault(place, []).append(item)
    for place, items in by_place.items():
        given = items[0]["input"]
        texts = dict.fromkeys(_text(item) for item in items)
        message = f"{', or '.join(texts)}, not {short(given)}"
        yield ".".join(map(str, place)), message + _remedy(items[0], given)


def _text(item: Any) -> str:
    if item["type"] == "missing":  # an item of a list that has a fixed number of them
        return "needs more values"
    if item["type"] == "too_long":
        return f"needs {item['ctx']['max_length']} values"
    text: str = item["msg"]
    return text[0].lower() + text[1:]


def _inside(loc: Sequence[Any], data: Any) -> tuple[Any, ...]:
    """The part of a pydantic location that is a path in the data; the rest names union members."""
    place: list[Any] = []
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        place.append(part)
    return tuple(place)


def _remedy(item: Any, given: Any) -> str:
    """What to write instead, if that is known."""
    kind, word = item["type"], str(given)
    if kind.startswith("bool") and word.lower() in _SWITCHES:
        return f"; write {_SWITCHES[word.lower()]}"
    if kind.startswith("int") and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}"
    if not isinstance(given, str):
        return ""
    if kind.startswith(("int", "float")) and _THOUSANDS.fullmatch(word):
        return f"; write {word.replace(',', '')}"
    if kind in ("tuple_type", "list_type") and "," in word:
        return f"; write [{short(word.strip('()[] '))[1:-1]}]"
    if kind == "literal_error" and f"'{word.lower()}'" in item["ctx"]["expected"]:
        return f"; write {word.lower()}"
    return ""


def files_near(path: Path) -> str:
    """YAML files with a name like that of a missing one, beside it or shipped."""
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


def within(directory: Path) -> str:
    """Files in a directory that was named instead of a file."""
    if (directory / "config.yaml").is_file():
        return f"; the run in it goes on with {directory}/config.yaml run_dir={directory}"
    with contextlib.suppress(OSError):
        there = [str(file) for file in sorted(directory.glob("*.yaml"))]
        if there:
            return f"; there are: {', '.join(there[:5])}"
    return "; name a YAML file"
