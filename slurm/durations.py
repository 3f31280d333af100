"""Durations in SLURM's notation: minutes, h:m:s, d-h:m:s."""

import re

_FORM = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?"
    r"|(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)|(?P<min>\d+)(?::(?P<sec>\d+))?)"
)


def seconds(text: str) -> int | None:
    """Parse a duration into seconds; None for an unlimited one.

    Raises:
        ValueError: the text is no duration.
    """
    if text.upper() in ("UNLIMITED", "INFINITE", "NOT_SET", "NONE"):
        return None
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no duration; write minutes, h:m:s or days-h:m:s")
    part = {name: int(value or 0) for name, value in found.groupdict().items()}
    hours = 24 * part["days"] + part["hours"] + part["h"]
    minutes = 60 * hours + part["minutes"] + part["m"] + part["min"]
    return 60 * minutes + part["seconds"] + part["s"] + part["sec"]


def readable(number: float) -> str:
    """Format seconds for a reader, such as ``90 s``, ``3 h 20 min``."""
    whole = int(number)
    if whole < 100:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
