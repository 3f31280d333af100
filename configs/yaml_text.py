"""YAML text as plain data: words stay words and numbers numbers, whatever the text.

PyYAML reads YAML 1.1, where ``1:30`` is 90, ``on`` is true, ``010`` is 8 and a date is an
object. Here PyYAML only parses; what a scalar means follows YAML 1.2's core schema (section
10.3.2), with ``1_000`` as a number besides. Keys are words as they are written. What is
meant for other programs is refused by name: merges (``<<``), tags, several documents,
aliases that hold themselves or grow beyond all bounds.
"""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_VALUES = 10_000
"""Values of a text, those of its aliases counted wherever they are used."""

MOST_LEVELS = 32
"""Blocks within blocks; the deepest setting lies four deep."""

MOST_DIGITS = 400

_CORE = "tag:yaml.org,2002:"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_FORMS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(
        rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
_FIRST = {"null": [*"~nN", ""], "bool": [*"tTfF"], "int": [*"-+0123456789"]}
_FIRST["float"] = [*_FIRST["int"], "."]


class TextError(ValueError):
    """What is wrong with a text, and where in it."""


class _Loader(yaml.SafeLoader):
    """Parses, and resolves every plain scalar by the core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it


class Dumper(yaml.SafeDumper):
    """Quotes what any reader could take for something else than text: theirs and ours."""

    def ignore_aliases(self, data: Any) -> bool:
        """Each value is written where it stands."""
        return True


for _kind, _form in _FORMS.items():
    _whole = re.compile(rf"(?:{_form.pattern})\Z")
    for _side in (_Loader, Dumper):
        _side.add_implicit_resolver(_CORE + _kind, _whole, _FIRST[_kind])


def parse(text: str, *, is_file: bool) -> Any:
    """The one document in a text; None if there is none.

    Raises:
        TextError: with line and column, but for a word of a command line.
    """
    lines = is_file or "\n" in text
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _Reader(lines).value(node, 0)
    except TextError:
        raise
    except yaml.reader.ReaderError as error:
        # Its position counts from the start of a buffer: find the character in the text.
        bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = 1 + text.count("\n", 0, bad.start() if bad else error.position)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise TextError(f"{_place(line, lines)}character #x{code:04x} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        raise TextError(_explained(error, lines)) from error
    except RecursionError as error:
        raise TextError(f"blocks lie more than {MOST_LEVELS} deep") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML's scanner hands numbers of escapes and directives to chr() and int() as they are.
        raise TextError(f"a number in an escape or directive is out of range ({error})") from error


def check_key(key: str) -> None:
    """TextError if the key of a word holds what no text can hold."""
    bad = yaml.reader.Reader.NON_PRINTABLE.search(key)
    if bad:
        raise TextError(f"character #x{ord(bad.group()):04x} is not allowed")


def _place(line: int, lines: bool, column: int | None = None) -> str:
    """Where something is, in a text that has lines."""
    if not lines:
        return ""
    return f"line {line}, column {column}: " if column else f"line {line}: "


def _explained(error: yaml.MarkedYAMLError, lines: bool) -> str:
    mark = error.problem_mark or error.context_mark
    place = _place(mark.line + 1, lines, mark.column + 1) if mark else ""
    problem = error.problem or error.context or "not understood"
    if r"'\t'" in problem:
        problem += "; indent with spaces, not tabs"
    elif "mapping values are not allowed" in problem:
        problem += "; a text that holds ': ' stands in quotes"
    elif "but found another document" in problem:
        problem = "a second document begins here ('---'); write one"
    context = f" ({error.context})" if error.context and error.problem else ""
    return f"{place}{problem}{context}"


class _Reader:
    """Nodes as plain data, with a bound on how many there are and how deep they lie."""

    def __init__(self, lines: bool) -> None:
        self._lines = lines
        self._values = 0
        self._open: list[Node] = []

    def value(self, node: Node, level: int) -> Any:
        """What a node stands for."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise self._error(node, f"more than {MOST_VALUES:,} values, aliases counted")
        if level > MOST_LEVELS:
            raise self._error(node, f"blocks lie more than {MOST_LEVELS} deep")
        if any(node is one for one in self._open):
            raise self._error(node, "an alias (*) stands for a block that holds it")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        self._open.append(node)
        if isinstance(node, SequenceNode):
            self._refuse_tag(node, "seq")
            found: Any = [self.value(item, level + 1) for item in node.value]
        else:
            assert isinstance(node, MappingNode)
            self._refuse_tag(node, "map")
            found = self._mapping(node, level)
        self._open.pop()
        return found

    def _mapping(self, node: MappingNode, level: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise self._error(key_node, "a key must be a word, not a list or a block")
            key = key_node.value
            if not key_node.tag.startswith(_CORE):
                raise self._odd_tag(key_node)
            if key == "<<" and key_node.style is None:
                raise self._error(
                    key_node,
                    "merges ('<<') are not read: write the keys out, or name several files, of "
                    "which later ones win key by key",
                )
            if key in found:
                raise self._error(key_node, f"duplicate key '{key}' (first on line {lines[key]})")
            lines[key] = key_node.start_mark.line + 1
            found[self._text(key_node)] = self.value(value_node, level + 1)
        return found

    def _scalar(self, node: ScalarNode) -> Any:
        kind = node.tag.removeprefix(_CORE)
        text = self._text(node)
        if kind == "str":
            return text
        if kind not in _FORMS:
            raise self._odd_tag(node)
        if not _FORMS[kind].fullmatch(text):
            raise self._error(node, f"'{text[:40]}' is no {kind}, which its tag promises")
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if len(text) > MOST_DIGITS:
            raise self._error(node, f"a number of {len(text):,} characters")
        if kind == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def _text(self, node: ScalarNode) -> str:
        """As it is written; an escape can write what no file and no JSON can hold."""
        text: str = node.value
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._error(node, "half a surrogate pair is no character")
        if "\0" in text:
            raise self._error(node, "a zero byte, which no path or name can hold")
        return text

    def _refuse_tag(self, node: Node, kind: str) -> None:
        if node.tag != _CORE + kind:
            raise self._odd_tag(node)

    def _odd_tag(self, node: Node) -> TextError:
        tag = node.tag.replace(_CORE, "!!")
        return self._error(node, f"the tag '{tag}' means nothing here: leave it out")

    def _error(self, node: Node, problem: str) -> TextError:
        mark = node.start_mark
        return TextError(f"{_place(mark.line + 1, self._lines, mark.column + 1)}{problem}")
