r"""Quoting of values in shell lines, in ``#SBATCH`` directives, and in names of log files.

Three readers have three rules. A shell takes single quotes literally. sbatch reads the quotes of
``#SBATCH`` lines as a shell does, but for a backslash, which escapes within single quotes too.
In the name of an output file, SLURM replaces ``%j`` and its like, and ``%%`` is a percent sign; it
always drops a backslash there, so such a path is refused, and so is one with a colon, at which
PYTHONPATH is split. No directive can hold a control character: a newline would end it.
"""

import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from configs.errors import UserError


def control(text: str) -> bool:
    """Whether a text holds a newline, another control character, or bytes that are no text."""
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def word(text: str) -> str:
    """Quote a text as one word of a shell line; control characters are escaped."""
    if not control(text):
        return shlex.quote(text)
    return "$'" + "".join(map(_letter, text)) + "'"


def _letter(letter: str) -> str:
    if letter in "\\'":
        return "\\" + letter
    if not control(letter):
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


def line(words: Iterable[str]) -> str:
    """Quote a command as one shell line."""
    return " ".join(map(word, words))


def escaped(text: str) -> str:
    """Escape backslashes of a directive's value, which is then put in quotes."""
    return text.replace("\\", "\\\\")


def directive(text: str) -> str:
    """Quote the value of a directive."""
    return shlex.quote(escaped(text))


def pattern(text: str) -> str:
    """Escape a path for the name of an output file, in which SLURM replaces ``%j``."""
    return text.replace("%", "%%")


def require_usable(run: Path) -> None:
    """UserError unless a job can use this run directory and the current directory."""
    if control(str(run)) or "\\" in str(run) or ":" in str(run):
        raise UserError(
            f"run_dir {str(run)!r}: a job's log and its copy of the code cannot lie in a directory "
            "whose name holds a backslash, a colon or a control character; choose another run_dir"
        )
    if control(str(Path.cwd())):
        raise UserError(f"{str(Path.cwd())!r} holds a control character; submit from elsewhere")
