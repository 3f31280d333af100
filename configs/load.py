"""YAML files and ``key.sub=value`` words become one frozen, validated dataclass.

Files merge left to right, then the words; a block whose ``name`` changes replaces the
old block whole, since its other keys belonged to another class. Validation is
pydantic's, in strict mode over JSON types: ``true`` is no integer, ``3`` is a float
where one is asked for. Every problem is reported at once, and an unknown key names the
nearest known one.

A field annotated ``Annotated[Any, Plugin("package.folder")]`` holds a block with a
``name``: the name of a module in that folder, whose one dataclass the rest of the block
configures. The folder is the registry, and only the named module is imported.
"""

import dataclasses
import difflib
import importlib
import json
import math
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from configs.errors import UserError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads ``3e-4`` as a float."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: dict[str, yaml.Mark] = {}
    for key_node, _ in node.value:
        key, mark = str(loader.construct_object(key_node)), key_node.start_mark
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key '{key}' (first on line {seen[key].line + 1})", mark
            )
        seen[key] = mark
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what :class:`_Loader` would read as a float."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )


@dataclasses.dataclass(frozen=True)
class Plugin:
    """Marks a field whose block names a module of ``package``; see the module docstring."""

    package: str

    def names(self) -> list[str]:
        """The modules one may name."""
        package = importlib.import_module(self.package)
        return sorted(
            m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")
        )

    def resolve(self, name: object) -> type:
        """The dataclass of module ``name``; ValueError with the known names otherwise."""
        kind = self.package.rsplit(".", 1)[-1].rstrip("s")
        known = self.names()
        if not isinstance(name, str) or name not in known:
            guess = _nearest(str(name), known) or "there are: " + ", ".join(known)
            raise ValueError(f"unknown {kind} {name!r}; {guess}")
        return _only_dataclass(f"{self.package}.{name}")

    def build(self, block: object) -> Any:
        """An instance from ``{name: ..., ...}``, or from the bare name."""
        block = {"name": block} if isinstance(block, str) else block
        if not isinstance(block, dict):
            raise ValueError("expected a block with a 'name'")
        cls = self.resolve(block.get("name"))
        settings = {key: value for key, value in block.items() if key != "name"}
        return TypeAdapter(cls).validate_json(json.dumps(settings), strict=True, extra="forbid")

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.build)


@cache
def _only_dataclass(module_name: str) -> type:
    module = importlib.import_module(module_name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and getattr(value, "__module__", "") == module_name
    ]
    assert len(found) == 1, f"{module_name} must define one dataclass, not {len(found)}"
    return typing.cast(type, found[0])


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as a dictionary; UserError if it is missing or malformed."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected 'key: value' lines, found a {type(data).__name__}")
    return data


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``, block by block, neither of them changed."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, dict) and "name" not in value:
            old = {"name": old}
        if isinstance(old, dict) and isinstance(value, dict) and _same_name(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_name(old: Any, new: Any) -> bool:
    return bool(new.get("name", old.get("name")) == old.get("name"))


def is_override(word: str) -> bool:
    """Whether a word is ``key=value`` and no file; a directory's name may hold a ``=``."""
    return "=" in word and "/" not in word.partition("=")[0]


def parse_override(word: str) -> dict[str, Any]:
    """``a.b=3`` as ``{"a": {"b": 3}}``; the value is read as YAML."""
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"'{word}': expected key=value or key.sub=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"'{word}': the value is not valid YAML: {error}") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def load(schema: type[T], files: Sequence[Path], overrides: Sequence[str] = ()) -> T:
    """The files and overrides as an instance of ``schema``; UserError lists every problem."""
    words = ["the words after them"] if overrides else []
    where = ", ".join([*map(str, files), *words])
    return validate(schema, merged(files, overrides), where=where)


def merged(files: Sequence[Path], overrides: Sequence[str]) -> dict[str, Any]:
    """The files and overrides as plain data, not validated."""
    data: dict[str, Any] = {}
    for path in files:
        data = merge(data, read_yaml(path))
    for word in overrides:
        data = merge(data, parse_override(word))
    return data


def validate(schema: type[T], data: Mapping[str, Any], where: str) -> T:
    """Plain data as an instance of ``schema``; ``where`` names the data in the error."""
    try:
        text = json.dumps(data)
    except TypeError as error:
        raise UserError(f"{where}: {error}; quote dates and other odd values") from error
    problems = [f"{key}: must be finite" for key in _non_finite(data)]
    try:
        config = TypeAdapter(schema).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        problems += [_problem(schema, data, item) for item in error.errors()]
    if not problems:
        return config
    noun = "problem" if len(problems) == 1 else "problems"
    raise UserError(f"{len(problems)} {noun} in {where}:\n  " + "\n  ".join(problems))


def _non_finite(data: Any, key: str = "") -> Iterator[str]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _non_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(data, float) and not math.isfinite(data):
        yield key


def _problem(schema: type, data: Mapping[str, Any], item: Any) -> str:
    loc = tuple(item["loc"])
    key = ".".join(str(part) for part in loc)
    if item["type"] == "unexpected_keyword_argument":
        known = _known_keys(schema, data, loc[:-1])
        guess = _nearest(str(loc[-1]), known)
        return f"{key}: unknown key; {guess or 'known here: ' + ', '.join(known)}"
    if item["type"] == "missing":
        return f"{key}: missing, and it has no default"
    message = item["msg"].removeprefix("Value error, ")
    prefix = f"{key}: " if key else ""
    if item["type"] == "value_error":
        return f"{prefix}{message}"
    return f"{prefix}{message[0].lower()}{message[1:]}, not {item['input']!r}"


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""


def _known_keys(schema: type, data: Any, loc: Sequence[Any]) -> list[str]:
    """The keys allowed in the block at ``loc``."""
    current: Any = schema
    named = False
    for part in loc:
        hint, plugin = _field_type(current, str(part))
        data = data.get(part) if isinstance(data, dict) else None
        named = plugin is not None
        if plugin is not None:
            current = plugin.resolve(data.get("name") if isinstance(data, dict) else data)
        else:
            current = hint
    names = (
        [f.name for f in dataclasses.fields(current)] if dataclasses.is_dataclass(current) else []
    )
    return (["name"] if named else []) + names


def _field_type(cls: Any, name: str) -> tuple[Any, Plugin | None]:
    hint = typing.get_type_hints(cls, include_extras=True)[name]
    marks = [m for m in typing.get_args(hint)[1:] if isinstance(m, Plugin)]
    if marks:
        return None, marks[0]
    options = [a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)]
    return (options[0] if options else hint), None


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
        _, plugin = _field_type(type(config), field.name)
        block = to_plain(value)
        if plugin is not None:
            block = {"name": type(value).__module__.rsplit(".", 1)[-1], **block}
        plain[field.name] = block
    return plain


def to_yaml(config: Any) -> str:
    """The same as YAML text, in the order of the fields."""
    return yaml.dump(to_plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
