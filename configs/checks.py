"""Validation of configurations, one check at a time, so that all errors are reported at once.

A configuration's checks are its methods ``_check_*``. Each yields what is wrong, a line
each, which begins with the name of the field to change: ``lr must be at least 0, not -1``.
Constructing stops at the first check that finds something; the loader runs all of them, with
:data:`UNKNOWN` in the place of what is wrong already.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn


class UnknownError(Exception):
    """A check used a value that is missing or invalid."""


class _Unknown:
    """Raises UnknownError at any use, so that no check takes it for a value."""

    def _refuse(self, *arguments: object) -> NoReturn:
        raise UnknownError

    __getattr__ = __getitem__ = __call__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = _refuse
    __bool__ = __len__ = __iter__ = __contains__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _refuse
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = _refuse
    __pow__ = __rpow__ = __format__ = __str__ = __repr__ = _refuse


UNKNOWN: Any = _Unknown()
"""Stands for the value of a field that is missing or invalid."""


class Checked:
    """Base of a dataclass that runs its checks when it is created."""

    def __post_init__(self) -> None:
        """Raise ValueError with the lines of the first check that finds something."""
        for check in checks(self):
            found = list(check())
            if found:
                raise ValueError("\n".join(found))


def checks(config: object) -> list[Callable[[], Iterator[str]]]:
    """The check methods of a configuration, in the order of their definition."""
    names = dict.fromkeys(
        name for cls in reversed(type(config).__mro__) for name in vars(cls) if _is_check(name)
    )
    return [getattr(config, name) for name in names]


def _is_check(name: str) -> bool:
    return name.startswith("_check_")


def at_least(config: object, least: float, *names: str) -> Iterator[str]:
    """An error for each of these fields that is below ``least``; None is no value."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value is not UNKNOWN and value < least:
            yield f"{name} must be at least {least}, not {value}"


def at_most(config: object, most: int, *names: str) -> Iterator[str]:
    """An error for each of these fields that is above ``most``; None is no value."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value is not UNKNOWN and value > most:
            yield f"{name} must be at most {most:,}, not {value}"


_KEY = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)*")


def named(line: str) -> str:
    """The key that an error line begins with; empty if there is none."""
    found = _KEY.match(line)
    return found.group() if found else ""
