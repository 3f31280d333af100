"""Files or directories whose names are numbers, each of which only one process can make."""

from collections.abc import Callable
from pathlib import Path


def numbers(directory: Path) -> list[int]:
    """The numbers that entries of a directory are named by, ascending; none without it."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def claim(
    directory: Path, create: Callable[[Path], None], *, above: int = 0, digits: int = 1
) -> int:
    """Create the next numbered entry and return its number, which no other process gets.

    Args:
        create: makes the entry, and raises FileExistsError where another process was faster.
        above: the number is higher than this one, and than all that are there.
        digits: names are filled up to this width with zeros.
    """
    number = 1 + max([above, *numbers(directory)])
    while True:
        try:
            create(directory / f"{number:0{digits}d}")
        except FileExistsError:
            number += 1
        else:
            return number
