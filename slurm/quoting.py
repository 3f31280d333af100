r"""How a value stands in a shell line, in a directive of sbatch, and in the name of a log.

Three readers, three rules. A shell takes single quotes literally. sbatch reads the quotes of
``#SBATCH`` lines as a shell does, but for a backslash, which escapes within single quotes too.
Where SLURM names an output file it replaces ``%j`` and its like, and ``%%`` is a percent sign; a
backslash there it drops, whatever is done, so that such a path cannot be used at all; nor can one
with a colon, at which PYTHONPATH is cut. A control character no directive can hold: the rest of
the value would be a line of its own.
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
    """A word of a shell line that stays one line, whatever the text holds."""
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
    """A command as one shell line."""
    return " ".join(map(word, words))


def escaped(text: str) -> str:
    """A directive's value before its quotes."""
    return text.replace("\\", "\\\\")


def directive(text: str) -> str:
    """A directive's value."""
    return shlex.quote(escaped(text))


def pattern(text: str) -> str:
    """A path that SLURM takes literally in the name of an output file."""
    return text.replace("%", "%%")


def require_usable(run: Path) -> None:
    """UserError unless a job can have this run directory, and begin where one stands."""
    if control(str(run)) or "\\" in str(run) or ":" in str(run):
        raise UserError(
            f"run_dir {str(run)!r}: a job's log and its copy of the code cannot lie in a directory "
            "whose name holds a backslash, a colon or a control character; choose another run_dir"
        )
    if control(str(Path.cwd())):
        raise UserError(f"{str(Path.cwd())!r} holds a control character; submit from elsewhere")
