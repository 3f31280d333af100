"""Oracles of the random draws of all objectives: Philox generator and stratified times."""

from collections.abc import Iterator

import torch

from model.draws import Draws, philox
from model.verification.check import Check, Comparison

FULL = 0xFFFFFFFF
VECTORS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
"""Known-answer tests of Philox4x32-10: counter, key and words from Random123 (kat_vectors)."""

BATCHES = (1, 2, 3, 16, 100, 513)


def oracles() -> Iterator[Check]:
    """Checks of :mod:`model.draws`."""
    yield Check(name="draws: Philox4x32-10", compare=_philox)
    yield Check(name="draws: stratified times", compare=_times)
    if torch.cuda.is_available():
        yield Check(name="draws: GPU and CPU", compare=_devices)


def _philox() -> list[Comparison]:
    wrong = []
    for counter, key, words in VECTORS:
        c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
        for found, word in zip(philox((c0, c1, c2, c3), key), words, strict=True):
            if int(found) != word:
                wrong.append(f"{int(found):#010x} in place of {word:#010x}")
    return [
        Comparison(
            what="words of 3 published vectors", deviation=len(wrong), figures=", ".join(wrong)
        )
    ]


def _times() -> list[Comparison]:
    """Each of N equal bins of (0, 1) has one time per global batch of N; also late in a run."""
    wrong = []
    for batch in BATCHES:
        for number in (0, 1, 10**6):
            draws = Draws(seed=5, split="verify", batch=batch)
            times = draws.times(batch * number + torch.arange(batch))[:, 0]
            if sorted((times * batch).long().tolist()) != list(range(batch)):
                wrong.append(f"global batch {number} of {batch} samples")
    return [
        Comparison(
            what=f"batches of {BATCHES[0]} to {BATCHES[-1]}, one a bin",
            deviation=len(wrong),
            figures=", ".join(wrong),
        )
    ]


def _devices() -> list[Comparison]:
    draws = Draws(seed=5, split="verify", batch=16)
    here, there = (
        torch.cat([draws.uniform("mask", position, 64), draws.times(position)], dim=1).cpu()
        for position in (torch.arange(256, device="cuda"), torch.arange(256, device="cpu"))
    )
    return [Comparison(what=f"bits of {here.numel()} draws", deviation=int((here != there).sum()))]
