"""Loggers: the blocks ``log`` and ``wandb`` of a run's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from configs.checks import Checked, at_least


@dataclass(frozen=True, kw_only=True)
class LogConfig(Checked):
    """Where the numbers go, beside metrics.jsonl.

    Args:
        every: steps between rows.
        tensorboard: event files for TensorBoard, in the run directory's ``tensorboard``.
        csv: the rows as a table, metrics.csv.
    """

    every: int = 10
    tensorboard: bool = False
    csv: bool = False

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "every")


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases beside metrics.jsonl.

    Args:
        mode: ``online`` sends rows as they come; ``offline`` keeps them in the run directory,
            without an account and a network, until ``wandb sync``.
        project: under which it lists the run.
    """

    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: str = "palimpsest"
