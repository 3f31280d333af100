"""Optimizer, learning rate and average: the blocks ``optim`` and ``ema`` of a configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from configs.checks import Checked, at_least


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Checked):
    """Learning rate over the run: linear warm-up, then constant, cosine or wsd.

    Args:
        name: after warm-up: constant; cosine to ``final``; or wsd, which holds the rate and lets
            it fall linearly over the last ``decay_share`` of the steps (Hu et al. 2024, MiniCPM).
        warmup: steps of linear warm-up from 0.
        final: the rate at the end, as a share of ``lr`` (cosine and wsd).
        decay_share: share of the steps over which the rate falls (wsd).
    """

    name: Literal["constant", "cosine", "wsd"] = "constant"
    warmup: int = 0
    final: float = 0.0
    decay_share: float = 0.2

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "warmup", "final")
        if not 0 < self.decay_share <= 1:
            yield f"decay_share must lie in (0, 1], not {self.decay_share}"


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked):
    """AdamW; norms, biases and embeddings are never decayed.

    Args:
        lr: the learning rate after warm-up.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, of the matrices only.
        clip: bound on the global gradient norm; 0 turns clipping off.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    schedule: ScheduleConfig = ScheduleConfig()

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 0, "lr", "eps", "weight_decay", "clip")

    def _check_betas(self) -> Iterator[str]:
        if not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas must lie in [0, 1), not {list(self.betas)}"


@dataclass(frozen=True, kw_only=True)
class EmaConfig(Checked):
    """Exponential moving average of the weights, which is validated, sampled and exported.

    Args:
        decay: share of the average that stays at each step; after n steps at most
            (1 + n) / (10 + n), so that it reaches back over a tenth of a short run; 0 is off.
    """

    decay: float = 0.9999

    def _check_decay(self) -> Iterator[str]:
        if not 0 <= self.decay < 1:
            yield f"decay must lie in [0, 1), not {self.decay}"
