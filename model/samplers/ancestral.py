"""Ancestral sampling of the masked process (Sahoo et al. 2024, eq. 7 and appendix).

From t to s a masked token stays masked with probability (1 - alpha_s) / (1 - alpha_t),
else it is drawn from the prediction; a visible token never changes. Which tokens are
revealed does not depend on the prediction, so it is drawn first, and the head runs at
those positions only: over a whole run, once for each token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.prediction import Prediction
from model.processes.absorbing import stay_masked
from model.samplers import Ask, Step


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    """Args: steps: network evaluations at most; temperature: of the token draws, 0 greedy."""

    steps: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, not {self.temperature}")

    def levels(self) -> Tensor:
        """Evenly spaced from 1 to 0."""
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)

    def step(self, ids_BL: Tensor, step: Step, ask: Ask) -> Tensor:
        """Reveal some of the masked tokens. No evaluation where none is revealed."""
        stay = stay_masked(step.schedule.alpha(step.s), step.schedule.alpha(step.t))
        uniform_BL = step.draws.uniform(f"reveal/{step.number}", step.position_B, ids_BL.shape[1])
        reveal_BL = (ids_BL == step.mask) & (uniform_BL >= stay)
        if not bool(reveal_BL.any()):
            return ids_BL
        level_B1 = step.t.float().expand(ids_BL.shape[0], 1)
        row_M, column_M = reveal_BL.nonzero(as_tuple=True)

        def drawn(prediction: Prediction) -> Tensor:
            assert prediction.logits is not None
            position_M, kind = step.position_B[row_M], f"token/{step.number}"
            return prediction.logits.sample(
                step.draws, kind, position_M, column_M, self.temperature
            )

        drawn_M = ask(ids_BL, level_B1, reveal_BL, drawn)
        return ids_BL.masked_scatter(reveal_BL, drawn_M)
