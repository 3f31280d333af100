"""The words of a command line: configuration files and ``key.sub=value`` settings.

Every command that takes them sorts them here, so that each says the same of what is neither:
a setting with dashes in front, or with spaces around its ``=``.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from configs import hints
from configs.errors import UserError
from configs.load import is_override

_DASHED = re.compile(r"--?([A-Za-z_]\w*(?:\.\w+)+|[A-Za-z_]\w*(?==))(=.*)?", re.S)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, options and words in any order; leaves with status 2 where they are wrong."""
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    for word in unknown:
        if found := _DASHED.fullmatch(word):
            key, value = found.groups()
            meant = hints.plain(key + (value or "=VALUE"))
            parser.exit(2, f"error: {hints.plain(word)}: a setting has no dashes: write {meant}\n")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(map(hints.plain, unknown))}")
    return arguments


def split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The configuration files, and the settings.

    Raises:
        UserError: with a line for each word that is neither.
    """
    problems = [*_spaced(words), *(f"'{hints.plain(w)}' is no UTF-8" for w in words if _odd(w))]
    if "" in words:
        problems.append("one of the words is empty; quote variables, or leave it out")
    if problems:
        raise UserError("\n  ".join(problems))
    files = [Path(word) for word in words if not is_override(word)]
    return files, [word for word in words if is_override(word)]


def _odd(word: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in word)


def _spaced(words: Sequence[str]) -> Iterator[str]:
    """Settings that spaces have cut apart: ``lr = 1``, ``lr =1`` or ``lr= 1``."""
    for index, (first, second) in enumerate(pairwise(words)):
        third = words[index + 2] if index + 2 < len(words) else "VALUE"
        if not first or _is_file(first):
            continue
        if second == "=":
            meant = f"{first}={third}"
        elif _is_cut(first, second):
            meant = first + second
        else:
            continue
        yield f"no spaces around '=': write {hints.plain(meant)}"


def _is_cut(first: str, second: str) -> bool:
    """Whether two words are one setting with a space before or after its ``=``."""
    if second.startswith("="):
        return "=" not in first
    is_value = bool(second) and "=" not in second and not _is_file(second)
    return first.endswith("=") and is_override(first) and is_value


def _is_file(word: str) -> bool:
    """Whether a word looks like a file more than like anything else."""
    return not is_override(word) and ("/" in word or word.endswith((".yaml", ".yml")))
