"""Ranges of parameters: the parts that ranks own, and the boxes that checkpoints hold.

Tensor parallelism gives a rank a box of a parameter (some of its rows, or columns); ZeRO
gives it a range of that box, flattened row by row. Such a range consists of a few boxes of the
full parameter (a partial row, full rows, a partial row), and resharding from one layout to
another is the intersection of their boxes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A box of a full parameter, and where its elements lie in a flat range.

    Args:
        corner: first index in each dimension.
        sizes: extent in each dimension.
        at: offset of its first element in the range; its elements follow row by row.
    """

    corner: tuple[int, ...]
    sizes: tuple[int, ...]
    at: int

    @property
    def num(self) -> int:
        """Number of elements."""
        return math.prod(self.sizes)


@dataclass(frozen=True, kw_only=True)
class FlatRange:
    """Elements ``start`` to ``start + num`` of a box of a parameter, flattened row by row.

    Args:
        name: canonical name of the parameter.
        shape: of the full parameter.
        corner: first index of the box in each dimension.
        sizes: extent of the box in each dimension.
    """

    name: str
    shape: tuple[int, ...]
    corner: tuple[int, ...]
    sizes: tuple[int, ...]
    start: int
    num: int

    @classmethod
    def whole(cls, name: str, shape: tuple[int, ...]) -> "FlatRange":
        """All elements of a parameter."""
        num, corner = math.prod(shape), (0,) * len(shape)
        return cls(name=name, shape=shape, corner=corner, sizes=shape, start=0, num=num)

    def boxes(self) -> Iterator[Slice]:
        """The boxes of the full parameter that make up the range, in its order."""
        for box in _boxes(self.sizes, self.start, self.num, 0):
            corner = tuple(a + b for a, b in zip(self.corner, box.corner, strict=True))
            yield Slice(corner=corner, sizes=box.sizes, at=box.at)


def _boxes(sizes: tuple[int, ...], start: int, num: int, at: int) -> Iterator[Slice]:
    """Boxes of an array of ``sizes`` that hold its flat elements [start, start + num)."""
    if num == 0:
        return
    if len(sizes) <= 1:
        corner, extent = ((start,), (num,)) if sizes else ((), ())
        yield Slice(corner=corner, sizes=extent, at=at)
        return
    inner = math.prod(sizes[1:])
    while num:
        row, column = divmod(start, inner)
        if column == 0 and num >= inner:
            rows = num // inner
            yield Slice(
                corner=(row, *(0 for _ in sizes[1:])),
                sizes=(rows, *sizes[1:]),
                at=at,
            )
            done = rows * inner
        else:
            done = min(num, inner - column)
            for box in _boxes(sizes[1:], column, done, at):
                yield Slice(corner=(row, *box.corner), sizes=(1, *box.sizes), at=box.at)
        start, num, at = start + done, num - done, at + done


def overlap(one: Slice, other: Slice) -> tuple[slice, ...] | None:
    """Indices of the full parameter that two boxes share; None where they share none."""
    found = []
    for a, n, b, m in zip(one.corner, one.sizes, other.corner, other.sizes, strict=True):
        low, high = max(a, b), min(a + n, b + m)
        if low >= high:
            return None
        found.append(slice(low, high))
    return tuple(found)


def copy_overlap(target: Tensor, wanted: Slice, source: Tensor, held: Slice) -> int:
    """Copy the elements that two boxes share; returns how many there are.

    Args:
        target, source: flat ``[num]`` values of ``wanted`` and ``held``.
    """
    shared = overlap(wanted, held)
    if shared is None:
        return 0
    into, out_of = (
        flat.view(box.sizes)[
            tuple(slice(s.start - c, s.stop - c) for s, c in zip(shared, box.corner, strict=True))
        ]
        for flat, box in ((target, wanted), (source, held))
    )
    into.copy_(out_of)
    return into.numel()


@dataclass(frozen=True, kw_only=True)
class OwnedRange:
    """A range that this rank owns, and its position in the rank's flat tensors.

    Args:
        group: index of the flat tensor.
        offset: of the range in it.
        is_copy: another rank owns the same range too (replicated and tied weights): it is read
            from checkpoints and not written to them.
    """

    range: FlatRange
    group: int
    offset: int
    is_copy: bool = False

    def is_in(self, flats: Sequence[Tensor]) -> bool:
        """Whether these tensors hold it: frozen parameters, the last group, have no moments."""
        return self.group < len(flats)

    def of(self, flats: Sequence[Tensor]) -> Tensor:
        """The view ``[num]`` of this range, in tensors that are laid out like the masters."""
        return flats[self.group].narrow(0, self.offset, self.range.num)


@dataclass(frozen=True, kw_only=True)
class Flats:
    """Flat tensors by kind (master, exp_avg, ...), which share one list of ranges."""

    kinds: Mapping[str, Sequence[Tensor]]
    owned_ranges: Sequence[OwnedRange]
