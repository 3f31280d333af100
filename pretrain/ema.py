"""Exponential moving average of the weights, kept as shards beside the fp32 masters.

Averaging is element by element, so each rank averages its own shards, without communication.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from pretrain.optim_config import EmaConfig


class OwnsMasters(Protocol):
    """What averaging needs of an engine."""

    @property
    def masters(self) -> list[Tensor]:
        """Flat fp32 masters of this rank."""

    def refresh(self) -> None:
        """Update the weights on every rank from the present masters."""


class Ema:
    """Averages in the layout of the masters; with decay 0 they equal the masters."""

    def __init__(self, config: EmaConfig, masters: Sequence[Tensor]) -> None:
        self._decay = config.decay
        self.shadows = [master.detach().clone() for master in masters]

    @torch.no_grad()
    def update(self, masters: Sequence[Tensor], step: int) -> None:
        """Update after step ``step`` (from 1), with decay min(decay, (1 + step) / (10 + step))."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for shadow, master in zip(self.shadows, masters, strict=True):
            shadow.lerp_(master, 1 - decay)

    @contextmanager
    def applied(self, engine: OwnsMasters) -> Iterator[None]:
        """Let the engine use the averaged weights; its own are restored afterwards, bit by bit."""
        own = [master.clone() for master in engine.masters]
        self._load(engine, self.shadows)
        try:
            yield
        finally:
            self._load(engine, own)

    @staticmethod
    def _load(engine: OwnsMasters, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for master, value in zip(engine.masters, values, strict=True):
                master.copy_(value)
        engine.refresh()
