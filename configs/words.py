"""Words of a command line: configuration files and ``key.sub=value`` settings.

All commands parse them here, so that all report the same error for words that are neither, such
as a setting with dashes in front or with spaces around its ``=``.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from configs import hints
from configs.errors import UserError
from configs.load import is_override

_DASHED = re.compile(r"--?([A-Za-z_][\w.]*)(?:=(.*))?", re.S)
_KEY = r"[A-Za-z_]\w*(?:\.\w+)*"
_COLON = re.compile(rf"({_KEY}):\s*(.*)", re.S)
_SLASHED = re.compile(r"([A-Za-z_]\w*(?:/\w+)+)=([^/]*)", re.S)
_VALUE = re.compile(r"[-+.\d\[{].*|true|false|null", re.S)
"""Words that are values rather than names of files or keys."""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse options and words in any order; exits with status 2 if they are wrong."""
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    for word, after in pairwise([*unknown, ""]):
        if found := _DASHED.fullmatch(word):
            key, value = found.groups()
            if close := _near(key, parser):
                parser.exit(2, f"error: {hints.plain(word)}: did you mean {close}?\n")
            value = value or ("" if after.startswith("-") else after)
            meant = _undashed(key, value)
            if meant:
                parser.exit(2, f"error: {hints.plain(word)}: {meant}\n")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(map(hints.plain, unknown))}")
    return arguments


def _near(key: str, parser: argparse.ArgumentParser) -> str:
    """The option that is closest to a word with dashes; empty if none is close."""
    known = {
        option.lstrip("-"): option for action in parser._actions for option in action.option_strings
    }
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.75)
    return known[close[0]] if close else ""


def _undashed(key: str, value: str) -> str:
    """How to write a file or setting that was given with dashes, like an option."""
    if _is_file(value):
        return f"files are named as they are: write {hints.plain(value)}"
    if not value and "." not in key:
        return ""
    return f"a setting has no dashes: write {hints.plain(key + '=' + (value or 'VALUE'))}"


def split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The configuration files, and the settings.

    Raises:
        UserError: with a line for each word that is neither.
    """
    problems = [*_misspelt(words), *(f"'{hints.plain(w)}' is no UTF-8" for w in words if _odd(w))]
    if "" in words:
        problems.append("one of the words is empty; quote variables, or leave it out")
    if problems:
        raise UserError("\n  ".join(problems))
    files = [Path(word) for word in words if not is_override(word)]
    return files, [word for word in words if is_override(word)]


def _odd(word: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in word)


def _misspelt(words: Sequence[str]) -> Iterator[str]:
    """Errors for settings with spaces around ``=``, or written as in YAML or as a path."""
    for index, first in enumerate(words):
        second, third = (*words[index + 1 :], "", "")[:2]
        if (found := _SLASHED.fullmatch(first)) and not os.path.exists(first):
            meant = f"{found[1].replace('/', '.')}={found[2]}"
            yield f"'{hints.plain(first)}': a key has dots: write {hints.plain(meant)}"
        if not first or first == "=" or _is_file(first):
            continue
        if second == "=":
            yield f"no spaces around '=': write {hints.plain(first + '=' + (third or 'VALUE'))}"
        elif second and _is_cut(first, second):
            yield f"no spaces around '=': write {hints.plain(first + second)}"
        elif os.path.exists(first):
            continue
        elif found := _COLON.fullmatch(first):
            key, value = found.groups()
            meant = f"{key}={value or second or 'VALUE'}"
            yield f"'{hints.plain(first)}': a setting has a '=': write {hints.plain(meant)}"
        elif re.fullmatch(_KEY, first) and _VALUE.fullmatch(second):
            yield f"a setting is one word: write {hints.plain(f'{first}={second}')}"


def _is_cut(first: str, second: str) -> bool:
    """Whether two words are one setting with a space before or after its ``=``."""
    if second.startswith("="):
        return "=" not in first
    is_value = bool(second) and "=" not in second and not _is_file(second)
    return first.endswith("=") and is_override(first) and is_value


def _is_file(word: str) -> bool:
    """Whether a word looks like a file's name."""
    return not is_override(word) and ("/" in word or word.endswith((".yaml", ".yml")))
