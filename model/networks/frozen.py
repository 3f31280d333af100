"""Parameters that are not trained, by patterns over their canonical names."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns (``layers.0.*``, ``*.tokens.weight``) is of this name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def freeze(names: Mapping[nn.Parameter, str], patterns: Sequence[str]) -> None:
    """Let these parameters have no gradient where a pattern is of their name."""
    for parameter, name in names.items():
        if is_frozen(name, patterns):
            parameter.requires_grad_(False)
