"""Build frozen dataclasses from plain data, or list everything that is wrong with the data.

Each value is read by pydantic in strict mode over JSON types: ``true`` is no integer, ``3``
is a float where one is asked for. Then come the checks of the block that it stands in, and
of the blocks around it (:mod:`configs.checks`), as far as what they need is known.

A field annotated ``Annotated[Any, Plugin("package.folder")]`` holds a block with a
``name``: the name of a module in that folder. The rest of the block configures the dataclass
there that has the module's name (``LogLinear`` of ``loglinear.py``); a module may hold others.
The folder is the registry, and only the named module is imported.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import pkgutil
import sys
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from configs import hints
from configs.checks import UNKNOWN, UnknownError, checks, named

MOST_INTEGER = 2**63
"""Upper bound on integers: torch, numpy and corpus files store 64 bits."""


@dataclasses.dataclass(frozen=True)
class Plugin:
    """Marks a field whose block names a module of ``package``; see the module docstring.

    Args:
        default: the module of a block without a ``name``; None where it has to be named.
    """

    package: str
    default: str | None = None

    def names(self) -> list[str]:
        """Names of the package's public modules, none of which is imported for it."""
        modules = pkgutil.iter_modules(self._path())
        return sorted(m.name for m in modules if not m.name.startswith("_"))

    def _path(self) -> list[str]:
        if package := sys.modules.get(self.package):
            return list(package.__path__)  # may have been extended
        spec = importlib.util.find_spec(self.package)
        assert spec is not None, f"there is no package {self.package}"
        return list(spec.submodule_search_locations or ())

    def resolve(self, name: object) -> type:
        """The dataclass of module ``name``; ValueError lists the known names."""
        kind = self.package.rsplit(".", 1)[-1].rstrip("s")
        known = self.names()
        if not isinstance(name, str) or name not in known:
            guess = hints.nearest(str(name), known) or "there are: " + ", ".join(known)
            raise ValueError(f"unknown {kind} {hints.short(name)}; {guess}")
        return _namesake(f"{self.package}.{name}")

    def others_with(self, key: str, name: object) -> list[str]:
        """The modules but ``name`` whose dataclass has a field ``key``."""
        others = [other for other in self.names() if other != name]
        return [o for o in others if key in {f.name for f in dataclasses.fields(self.resolve(o))}]

    def build(self, block: object) -> Any:
        """Build an instance from ``{name: ..., ...}``, or from the bare name.

        Raises:
            ValueError: one line for each problem.
        """
        builder = Builder(object, {})
        built = builder.plugin(self, block, "")
        if builder.problems:
            raise ValueError("\n".join(builder.problems))
        return built


class Block(dict[str, Any]):
    """A merged block.

    Attributes:
        given_before_name: its keys from when it had no name yet. Those that belong to another
            class than the one named since are dropped.
    """

    given_before_name: set[str] = set()  # noqa: RUF012 - replaced, never changed


@cache
def _namesake(module_name: str) -> type:
    """The dataclass of a module's own name, ignoring case and underscores."""
    module = importlib.import_module(module_name)
    wanted = module_name.rpartition(".")[2].replace("_", "")
    found = [
        value
        for name, value in vars(module).items()
        if name.lower() == wanted
        and isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and value.__module__ == module_name
    ]
    assert len(found) == 1, f"{module_name} must define a dataclass of its name, such as {wanted}"
    return typing.cast(type, found[0])


def field_type(cls: Any, name: str) -> tuple[Any, Plugin | None]:
    """The type of a field, or the plugin that it holds; of ``X | None`` the dataclass X."""
    hint = _hints(cls)[name]
    for mark in typing.get_args(hint)[1:]:
        if isinstance(mark, Plugin):
            return None, mark
    options = [a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)]
    return (options[0] if options else hint), None


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


class Builder:
    """Builds nested blocks and collects the errors of all of them."""

    def __init__(self, schema: type, data: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._schema, self._data = schema, data

    def block(
        self,
        cls: Any,
        data: Any,
        at: str,
        also: tuple[str, ...] = (),
        plugin: Plugin | None = None,
    ) -> Any:
        """Build a dataclass; invalid fields hold UNKNOWN.

        A class may have ``former_keys``: those of earlier versions, each with what to write now.

        Args:
            at: the key of the block. also: allowed keys that are no fields.
            plugin: of which the block names a module.
        """
        if not isinstance(data, Mapping):
            self._add(
                at, f"expected a block of settings, not {_shown(data)}; {_key_of(cls, data, at)}"
            )
            return UNKNOWN
        before = len(self.problems)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for key in data:
            if key not in fields and key not in also:
                self._add(
                    _join(at, str(key)), self._unknown(cls, str(key), [*also, *fields], plugin)
                )
        values = {name: self._field(cls, f, data, at) for name, f in fields.items()}
        if len(self.problems) > before:
            return self._partly(cls, values, at)
        try:
            return cls(**values)
        except ValueError as error:
            made = self._partly(cls, values, at)
            if len(self.problems) > before:
                return made
            for line in str(error).splitlines():
                self._add_line(line, fields, at)
            return UNKNOWN

    def _unknown(self, cls: Any, key: str, known: list[str], plugin: Plugin | None) -> str:
        """The message on a key that the block of a class does not have."""
        if former := getattr(cls, "former_keys", {}).get(key):
            return str(former)
        if plugin and (others := plugin.others_with(key, cls.__module__.rpartition(".")[2])):
            return f"unknown key; it is one of name {' or '.join(others)}"
        return f"unknown key; {hints.for_key(key, known, all_keys(self._schema, self._data))}"

    def _field(self, cls: Any, field: "dataclasses.Field[Any]", data: Any, at: str) -> Any:
        key = _join(at, field.name)
        if field.name in data:
            return self._value(cls, field.name, data[field.name], key)
        if field.default is not dataclasses.MISSING:
            return field.default
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
        self._add(key, "missing, and it has no default")
        return UNKNOWN

    def _partly(self, cls: Any, values: dict[str, Any], at: str) -> Any:
        """An instance without ``__post_init__``, with each check run on its own."""
        made = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        for check in checks(made):
            try:
                for line in check():
                    self._add_line(line, values, at)
                    if (name := named(line)) in values:
                        object.__setattr__(made, name, UNKNOWN)
            except UnknownError:
                continue
            except ValueError as error:
                self._add_line(str(error), values, at)
        return made

    def _value(self, cls: Any, name: str, data: Any, key: str) -> Any:
        hint, plugin = field_type(cls, name)
        if plugin is not None:
            return self.plugin(plugin, data, key)
        whole = _hints(cls)[name]
        if data is None and type(None) in typing.get_args(whole):
            return None
        if dataclasses.is_dataclass(hint):
            return self.block(hint, data, key)
        return self._leaf(whole, data, key)

    def plugin(self, plugin: Plugin, data: Any, key: str) -> Any:
        """Build the block of a plugin, or its bare name."""
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, Mapping):
            self._add(key, "expected a block with a 'name'")
            return UNKNOWN
        try:
            cls = plugin.resolve(data.get("name", plugin.default))
        except ValueError as error:
            self._add(key, str(error))
            return UNKNOWN
        settings = {name: value for name, value in data.items() if name != "name"}
        chosen = cls.__module__.rpartition(".")[2]
        for name in getattr(data, "given_before_name", set()) - set(_hints(cls)):
            if plugin.others_with(name, chosen):
                del settings[name]
        return self.block(cls, settings, key, also=("name",), plugin=plugin)

    def _leaf(self, hint: Any, data: Any, key: str) -> Any:
        found = len(self.problems)
        for place, value in _numbers(data, key):
            if isinstance(value, float) and not math.isfinite(value):
                self._add(place, "must be finite")
        if len(self.problems) > found:
            return UNKNOWN
        try:
            read = _adapter(hint).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            for place, message in hints.of_value(error, data):
                self._add(_join(key, place), message)
            return UNKNOWN
        except (TypeError, ValueError, RecursionError):
            self._add(key, f"no plain value, but {type(data).__name__}")
            return UNKNOWN
        for place, value in _numbers(read, key):
            if isinstance(value, int) and not -MOST_INTEGER <= value < MOST_INTEGER:
                self._add(place, f"must fit into 64 bits, not {_shown(value)}")
            elif isinstance(value, float) and not math.isfinite(value):
                self._add(place, "must be finite")
        return read if len(self.problems) == found else UNKNOWN

    def _add(self, key: str, message: str) -> None:
        self.problems.append(f"{key}: {message}" if key else message)

    def _add_line(self, line: str, fields: Mapping[str, Any], at: str) -> None:
        """Add a check's line, prefixed with the key of the field that it begins with."""
        name = named(line)
        rest = line.removeprefix(name)
        if name.partition(".")[0] not in fields:
            self._add(at, line)
        elif rest.startswith((":", " must ")) or ("." in name and not at):
            self.problems.append(_join(at, line))
        else:
            self._add(_join(at, name), line)


_shown = hints.short


def _key_of(cls: Any, data: Any, at: str) -> str:
    """Which key of a block was meant where a bare value stands in its place."""
    names = [name for name, hint in _hints(cls).items() if data in _choices(hint)]
    if len(names) == 1:
        return f"did you mean {_join(at, names[0])}={data}?"
    fields = (field.name for field in dataclasses.fields(cls) if field.init)
    return "its keys are: " + ", ".join(fields)


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at and name else at or name


def _numbers(data: Any, key: str) -> Iterator[tuple[str, Any]]:
    """All scalars within a value, each with its key."""
    waiting = [(key, data)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(_join(place, str(name)), item) for name, item in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(_join(place, str(index)), item) for index, item in enumerate(value)]
        else:
            yield place, value


def all_keys(cls: Any, data: Any, at: str = "") -> Iterator[str]:
    """Every key that a configuration may have, given the plugins that ``data`` names."""
    if not dataclasses.is_dataclass(cls):
        return
    for field in dataclasses.fields(cls):
        key = _join(at, field.name)
        yield key
        inner = data.get(field.name) if isinstance(data, Mapping) else None
        hint, plugin = field_type(cls, field.name)
        if plugin is not None:
            block = {} if inner is None else inner
            name = block.get("name", plugin.default) if isinstance(block, Mapping) else block
            if not isinstance(name, str) or name not in plugin.names():
                continue
            hint = plugin.resolve(name)
        yield from all_keys(hint, inner, key)
