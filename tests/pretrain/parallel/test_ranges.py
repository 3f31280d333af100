"""Ranges and boxes: every element of a parameter is found again, however it was cut."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain.parallel.ranges import FlatRange, Slice, copy_overlap, overlap

SHAPES = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)


@st.composite
def ranges(draw: st.DrawFn, shape: tuple[int, ...]) -> FlatRange:
    """Any range of any box of a parameter."""
    corner = tuple(draw(st.integers(0, n - 1)) for n in shape)
    sizes = tuple(draw(st.integers(1, n - a)) for n, a in zip(shape, corner, strict=True))
    start = draw(st.integers(0, math.prod(sizes)))
    num = draw(st.integers(0, math.prod(sizes) - start))
    return FlatRange(name="p", shape=shape, corner=corner, sizes=sizes, start=start, num=num)


def held(shards: FlatRange, whole: torch.Tensor) -> torch.Tensor:
    """The definition: the flat elements of the box."""
    index = tuple(slice(a, a + n) for a, n in zip(shards.corner, shards.sizes, strict=True))
    return whole[index].flatten()[shards.start : shards.start + shards.num]


@given(data=st.data(), shape=SHAPES)
def test_the_boxes_of_a_range_are_its_elements_in_order(data: st.DataObject, shape) -> None:
    whole = torch.arange(math.prod(shape)).view(shape)
    shards = data.draw(ranges(shape))
    parts, at = [torch.empty(0, dtype=torch.int64)], 0
    for box in shards.boxes():
        assert box.at == at
        at += box.num
        index = tuple(slice(a, a + n) for a, n in zip(box.corner, box.sizes, strict=True))
        parts.append(whole[index].flatten())
    assert torch.equal(torch.cat(parts), held(shards, whole))


@given(data=st.data(), shape=SHAPES)
def test_what_two_ranges_share_is_copied_and_nothing_else(data: st.DataObject, shape) -> None:
    whole = torch.arange(math.prod(shape)).view(shape)
    wanted, source = data.draw(ranges(shape)), data.draw(ranges(shape))
    values = held(source, whole)
    target = torch.full((wanted.num,), -1)
    copied = 0
    for box in wanted.boxes():
        for other in source.boxes():
            copied += copy_overlap(
                target[box.at : box.at + box.num],
                box,
                values[other.at : other.at + other.num],
                other,
            )
    asked = held(wanted, whole)
    shared = torch.isin(asked, values)
    assert copied == int(shared.sum())
    assert torch.equal(target, torch.where(shared, asked, -1))


def test_neighbouring_boxes_share_nothing() -> None:
    left = Slice(corner=(0, 0), sizes=(2, 2), at=0)
    assert overlap(left, Slice(corner=(0, 2), sizes=(2, 2), at=0)) is None
    assert overlap(left, Slice(corner=(1, 1), sizes=(2, 2), at=0)) == (slice(1, 2), slice(1, 2))
