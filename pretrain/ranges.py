"""Ranges of flattened parameters: how ZeRO cuts them, and how checkpoints hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Range:
    """Elements ``start`` to ``start + num`` of a parameter, flattened row by row.

    Args:
        name: canonical name of the parameter; shape: of the whole of it.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    num: int


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A range whose master this rank owns, and where it lies in the rank's flat masters.

    Args:
        group: which flat master; offset: of the range in it.
    """

    range: Range
    group: int
    offset: int

    def of(self, flats: Sequence[Tensor]) -> Tensor:
        """The view ``[num]`` of this range, in tensors that are laid out like the masters."""
        return flats[self.group].narrow(0, self.offset, self.range.num)
