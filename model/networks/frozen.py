"""Freeze parameters (no training) by patterns over their canonical names."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    """Whether the name matches one of the patterns (``layers.0.*``, ``*.tokens.weight``)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def freeze(names: Mapping[nn.Parameter, str], patterns: Sequence[str]) -> None:
    """Set ``requires_grad`` to false for parameters whose name matches a pattern."""
    for parameter, name in names.items():
        if is_frozen(name, patterns):
            parameter.requires_grad_(False)
