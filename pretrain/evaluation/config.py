"""Validation while training: the block ``eval`` of a run's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.checks import Checked, at_least, at_most
from pretrain.parallel.config import MOST


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Checked):
    """Validation while training.

    Args:
        every: steps between validations; 0 for none.
        samples: corruptions of each held-out window; more make the number less noisy.
        batch: windows per forward pass.
        windows: use only the first windows of the split, this many; by default all.
    """

    every: int = 0
    samples: int = 1
    batch: int = 32
    windows: int | None = None

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "every")
        yield from at_least(self, 1, "samples", "batch", "windows")
        yield from at_most(self, MOST, "samples", "batch", "windows")
