"""Checkpoints of one small parameter, written as the ranks of a run write theirs."""

import itertools
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoint import store
from pretrain.checkpoint.saver import Saver
from pretrain.parallel.ranges import FlatRange, OwnedRange

SHAPE = (4, 5)

VALUES = torch.arange(20.0)


def part(start: int, num: int, name: str = "w") -> FlatRange:
    return FlatRange(name=name, shape=SHAPE, corner=(0, 0), sizes=SHAPE, start=start, num=num)


def savers(directory: Path, size: int, attempt: int = 1, **settings: Any) -> list[Saver]:
    store.fence(directory, attempt)
    return [
        Saver(directory, rank=rank, size=size, attempt=attempt, **settings) for rank in range(size)
    ]


def settle(ranks: list[Saver]) -> list[str]:
    """What the ranks do together at every step; the complaints."""
    reports = [saver.report() for saver in ranks]
    sums = [sum(column) for column in zip(*reports, strict=True)]
    return [note.text for saver in ranks if (note := saver.settle(*sums))]


def finish(ranks: list[Saver]) -> list[str]:
    notes = []
    for _ in range(2):
        for saver in ranks:
            saver.wait()
        notes += settle(ranks)
    return notes


def begin(ranks: list[Saver], step: int, cuts: list[int], **state: Any) -> None:
    """One parameter, whose flattened range is cut among ranks at ``cuts``."""
    for saver, (low, high) in zip(ranks, itertools.pairwise([0, *cuts, 20]), strict=True):
        owned_range = OwnedRange(range=part(low, high - low), group=0, offset=0)
        flat = VALUES[low:high] + step
        saver.begin({"step": step, **state}, {"master": [flat], "ema": [-flat]}, [owned_range])


def save(directory: Path, step: int, cuts: list[int], **state: Any) -> Path:
    ranks = savers(directory, len(cuts) + 1)
    begin(ranks, step, cuts, **state)
    assert finish(ranks) == []
    store.leave(directory, 1)
    return store.path_of(directory, step)


def flipped(data: bytes) -> bytes:
    """One bit is another."""
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]
