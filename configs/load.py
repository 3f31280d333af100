"""Load YAML files and ``key.sub=value`` overrides as one frozen, validated dataclass.

Files merge left to right, then the words; a block whose ``name`` changes replaces the
old block, since its other keys belonged to another class. Every problem is reported
at once, and an unknown key names the nearest known one (:mod:`configs.build`).
"""

import dataclasses
import os
import stat
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from configs import hints, yaml_text
from configs.build import Block, Builder, Plugin, field_type
from configs.errors import UserError

__all__ = [
    "Plugin",
    "is_override",
    "load",
    "merge",
    "merged",
    "named_plain",
    "parse_override",
    "read_yaml",
    "to_plain",
    "to_yaml",
    "validate",
]

T = TypeVar("T")

MOST_BYTES = 256 * 1024
"""Of a configuration; the longest that is shipped has two thousand."""


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a dictionary; UserError if it is missing or malformed."""
    try:
        data = yaml_text.parse(_text(path), is_file=True)
    except yaml_text.TextError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found a {type(data).__name__}")
    return data


def _text(path: Path) -> str:
    """Read a text file; UserError if it is none."""
    try:
        # A named pipe would make us wait for ever, and what it holds could be read once only.
        if not stat.S_ISREG(os.stat(path).st_mode):
            is_directory = path.is_dir()
            kind = "a directory" if is_directory else "no regular file"
            instead = hints.within(path) if is_directory else "; name a YAML file"
            raise UserError(f"cannot read {path}: it is {kind}{instead}")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}{hints.files_near(path)}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"cannot read {str(path)!r}: {error}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes: it is no configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        line = 1 + content.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}, line {line}: the text is {what} (byte 0x{content[error.start]:02x}); save it "
            "as UTF-8"
        ) from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``over`` into ``base`` block by block; returns a new dictionary."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, dict) and "name" not in value:
            old = {"name": old}
        if isinstance(old, dict) and isinstance(value, dict) and _same_name(old, value):
            merged[key] = _merged_block(old, value)
        else:
            merged[key] = value
    return merged


def _merged_block(old: dict[str, Any], new: dict[str, Any]) -> Block:
    given_before = set(old) if "name" in new and "name" not in old else set()
    given_before |= getattr(old, "given_before_name", set())
    block = Block(merge(old, new))
    block.given_before_name = given_before - set(new)
    return block


def _same_name(old: Any, new: Any) -> bool:
    """Whether both are of one class, as far as they tell."""
    names = [block["name"] for block in (old, new) if "name" in block]
    return len(names) < 2 or names[0] == names[1]


def is_override(word: str) -> bool:
    """Whether a word is ``key=value`` and no file; a directory's name may hold a ``=``."""
    return "=" in word and "/" not in word.partition("=")[0]


def parse_override(word: str) -> dict[str, Any]:
    """Parse ``a.b=3`` into ``{"a": {"b": 3}}``; the value is read as YAML."""
    key, equals, text = word.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or key != key.strip():
        raise UserError(f"'{hints.plain(word)}': expected key=value or key.sub=value")
    if len(parts) > yaml_text.MOST_LEVELS:
        raise UserError(f"'{hints.plain(word)}': the key is too long")
    try:
        yaml_text.check_key(key)
        value = yaml_text.parse(text, is_file=False)
    except yaml_text.TextError as error:
        raise UserError(f"'{hints.plain(word)}': the value is not valid YAML: {error}") from error
    for part in reversed(parts):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def load(
    schema: type[T],
    files: Sequence[Path],
    overrides: Sequence[str] = (),
    read: Callable[[Path], dict[str, Any]] = read_yaml,
) -> T:
    """Load files and overrides as an instance of ``schema``; UserError lists every problem.

    Args:
        read: makes a dictionary of each file.
    """
    words = ["the words after them"] if overrides else []
    where = ", ".join([*map(str, files), *words])
    return validate(schema, merged(files, overrides, read), where=where)


def merged(
    files: Sequence[Path],
    overrides: Sequence[str],
    read: Callable[[Path], dict[str, Any]] = read_yaml,
) -> dict[str, Any]:
    """The files and overrides as plain data, not validated.

    Raises:
        UserError: with a line for each file and word that cannot be read.
    """
    data: dict[str, Any] = {}
    problems = []
    everything: list[Path | str] = [*files, *overrides]
    for given in everything:
        try:
            block = read(given) if isinstance(given, Path) else parse_override(given)
        except UserError as error:
            problems.append(str(error))
        else:
            data = merge(data, block)
    if problems:
        raise UserError("\n  ".join(problems))
    return data


def validate(schema: type[T], data: Mapping[str, Any], where: str) -> T:
    """Validate plain data as an instance of ``schema``; ``where`` names the data in errors."""
    builder = Builder(schema, data)
    config = builder.block(schema, data, "")
    problems = builder.problems
    if not problems:
        return typing.cast(T, config)
    noun = "problem" if len(problems) == 1 else "problems"
    raise UserError(f"{len(problems)} {noun} in {where}:\n  " + "\n  ".join(problems))


def to_plain(config: Any) -> Any:
    """A configuration as dictionaries, lists and scalars that :func:`validate` reads back."""
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    if isinstance(config, Path):
        return str(config)
    if not dataclasses.is_dataclass(config):
        return config
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        _, plugin = field_type(type(config), field.name)
        block = to_plain(value)
        plain[field.name] = block if plugin is None else named_plain(value)
    return plain


def named_plain(config: Any) -> dict[str, Any]:
    """The block of a class that is chosen by name: the same, with its ``name`` first."""
    return {"name": type(config).__module__.rsplit(".", 1)[-1], **to_plain(config)}


def to_yaml(config: Any) -> str:
    """The same as YAML text, in the order of the fields."""
    return yaml.dump(to_plain(config), Dumper=yaml_text.Dumper, sort_keys=False, allow_unicode=True)
