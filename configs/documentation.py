"""Key reference: every configuration key with type, default and meaning, read from dataclasses.

Types and defaults come from the fields, meanings from the ``Args:`` of the docstrings::

    Args:
        width: D.
        qkv_bias, attention_bias: biases of queries, keys and values; of attention's output.

A block that names a module (:class:`configs.load.Plugin`) is listed once for each name.
"""

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from configs import hints
from configs.errors import UserError
from configs.load import Plugin, to_plain

_ENTRY = re.compile(r"(?P<names>[a-z]\w*(?:, [a-z]\w*)*): (?P<text>.*)")
_ROLE = re.compile(r":[a-z]+:`([^`]+)`")
_QUOTED = re.compile(r"`{1,2}([^`]+)`{1,2}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One configuration key.

    Args:
        name: as in ``key.sub=value``.
        type: in words: "integer", "linear | tanh", "number or none".
        default: as YAML writes it; None where the key has to be given.
        meaning: from the docstring; empty where it has none.
        when: the choice under which the key is there, such as ``objective.name=mdlm``.
    """

    name: str
    type: str
    default: str | None
    meaning: str
    when: str = ""


def without_markup(text: str) -> str:
    """Docstring text without the markup of reStructuredText, for a terminal."""
    return _QUOTED.sub(r"\1", _ROLE.sub(lambda match: match[1].rpartition(".")[2], text))


def keys(schema: type, prefix: str = "", when: str = "") -> Iterator[Key]:
    """The keys of a configuration dataclass, in the order of its fields, blocks unfolded."""
    meanings = field_texts(schema)
    types_ = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        name, hint = f"{prefix}{field.name}", types_[field.name]
        meaning = meanings.get(field.name, "")
        plugin = next((m for m in typing.get_args(hint)[1:] if isinstance(m, Plugin)), None)
        block = _dataclass_in(hint)
        if plugin is not None:
            yield from _plugin_keys(plugin, field, block, name, meaning, when)
        elif block is not None:
            if _is_optional(hint):
                yield Key(
                    name=name, type="block or none", default=_default(field), meaning=meaning,
                    when=when,
                )  # fmt: skip
            yield from keys(block, f"{name}.", when)
        else:
            yield Key(
                name=name, type=type_text(hint), default=_default(field), meaning=meaning,
                when=when,
            )  # fmt: skip


def _plugin_keys(
    plugin: Plugin,
    field: "dataclasses.Field[Any]",
    base: type | None,
    name: str,
    meaning: str,
    when: str,
) -> Iterator[Key]:
    """The name; the keys of the dataclass that all choices extend, if any; each choice's own."""
    names = plugin.names()
    default = plugin.default
    if field.default is not dataclasses.MISSING:
        default = type(field.default).__module__.rsplit(".", 1)[-1]
    yield Key(
        name=f"{name}.name", type=" | ".join(names), default=default, meaning=meaning, when=when
    )
    common = list(keys(base, f"{name}.", when)) if base else []
    yield from common
    known = {key.name for key in common}
    given: set[tuple[str, str]] = set()
    for choice in names:
        found = list(keys(plugin.resolve(choice), f"{name}.", f"{name}.name={choice}"))
        # A plugin within several of the choices is listed once.
        yield from (k for k in found if k.name not in known and (k.name, k.when) not in given)
        given |= {(key.name, key.when) for key in found}


def field_texts(schema: type) -> dict[str, str]:
    """Texts of the ``Args:`` of a dataclass's docstring and its bases', by field name."""
    found: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        found |= _own_texts(cls)
    return found


def _own_texts(schema: type) -> dict[str, str]:
    text = inspect.cleandoc(schema.__doc__ or "")
    found: dict[str, list[str]] = {}
    names: list[str] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith(" "):
            inside = line.startswith("Args:")
            line = line.removeprefix("Args:") if inside else line
        if not inside or not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        entry = _ENTRY.fullmatch(line.strip())
        if entry and indent <= 4:
            names = entry["names"].split(", ")
            for name in names:
                found[name] = [entry["text"]]
        else:
            for name in names:
                found[name].append(line.strip())
    return {name: without_markup(" ".join(lines)) for name, lines in found.items()}


def type_text(hint: Any) -> str:
    """A type in words; choices are listed."""
    if typing.get_origin(hint) is typing.Annotated:
        return type_text(typing.get_args(hint)[0])
    options = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " | ".join(str(option) for option in options)
    if _is_optional(hint):
        return " or ".join([*(type_text(o) for o in options if o is not type(None)), "none"])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(type_text(option) for option in options)
    if typing.get_origin(hint) is tuple:
        if options[-1] is Ellipsis:
            return f"list of {_plural(options[0])}"
        return f"list of {len(options)} {_plural(options[0])}"
    if typing.get_origin(hint) in (dict, Mapping):
        return f"block of {_plural(options[1])}"
    names = {int: "integer", float: "number", bool: "true | false", str: "text", Any: "setting"}
    return names.get(hint, str(hint))


def _plural(hint: Any) -> str:
    text = type_text(hint)
    if text.startswith("block of "):
        return f"blocks{text.removeprefix('block')}"
    return f"{text}s" if text in ("integer", "number", "text", "setting") else text


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass of a type hint ``X`` or ``X | None``; None for other types."""
    options = [hint, *typing.get_args(hint)]
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _default(field: "dataclasses.Field[Any]") -> str | None:
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return None
        value = field.default_factory()
    value = to_plain(value)
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def listing(schema: type, prefixes: Sequence[str] = (), width: int = 100) -> str:
    """All keys, or those that begin with a prefix, as text for a terminal.

    Raises:
        UserError: no key begins with one of the prefixes.
    """
    lines: list[str] = []
    when = ""
    found = list(keys(schema))
    for prefix in prefixes:
        if not any(_below(key.name, prefix) for key in found):
            raise _unknown(prefix, found)
    for key in found:
        if prefixes and not any(_below(key.name, prefix) for prefix in prefixes):
            continue
        if key.when != when:
            lines += ["", f"with {key.when}"] if key.when else [""]
            when = key.when
        default = "needed" if key.default is None else f"default {key.default}"
        lines.append(f"{key.name}  ({key.type}; {default})")
        lines += textwrap.wrap(key.meaning, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines).strip("\n")


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix.rstrip('.')}.")


def _unknown(prefix: str, found: Sequence[Key]) -> UserError:
    """The error for a prefix that no key has, with the keys that may be meant."""
    if prefix.endswith((".yaml", ".yml")):
        return UserError(f"{prefix} is no key: name keys beside --keys or --help, and no files")
    names = [key.name for key in found]
    word = prefix.partition("=")[0].rpartition(".")[2]
    blocks = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return UserError(
        f"no key is, or begins with, '{hints.plain(prefix)}' (`--keys` alone lists them all); "
        + hints.for_key(word, blocks, dict.fromkeys(names))
    )
