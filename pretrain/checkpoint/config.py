"""Saving: the block ``checkpoint`` of a run's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.checks import Checked, at_least


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Checked):
    """Frequency of saves, and retention of checkpoints.

    Args:
        every: steps between saves; one is always made at the end.
        keep_last: how many of the newest stay.
        keep_every: those of every n-th step stay too; 0 for none.
        keep_best: how many with the best held-out score stay too.
        asynchronous: write while training goes on; it waits only for a copy in host memory.
    """

    every: int = 1000
    keep_last: int = 2
    keep_every: int = 0
    keep_best: int = 0
    asynchronous: bool = True

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "every", "keep_last")
        yield from at_least(self, 0, "keep_every", "keep_best")
