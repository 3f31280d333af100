"""Ancestral sampling for masked diffusion (Sahoo et al. 2024, eq. 7 and appendix).

From t to s a masked token stays masked with probability (1 - alpha_s) / (1 - alpha_t),
else it is drawn from the prediction; a visible token never changes. Which tokens are
revealed does not depend on the prediction, so it is drawn first, and the head runs at
those positions only: once per token over a complete run.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from model.prediction import Prediction
from model.processes.absorbing import stay_masked
from model.query import Query
from model.samplers import Job, Sampler, check_steps, check_temperature


@dataclass(frozen=True, kw_only=True)
class Ancestral(Sampler):
    """Unmask tokens at random positions, in numbers that follow the noise schedule.

    Args:
        steps: maximum number of network evaluations.
        temperature: sampling temperature of tokens; 0 takes the likeliest.
    """

    undoes = ("mask",)

    steps: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_temperature(self.temperature)

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    def levels(self) -> Tensor:
        """Times evenly spaced from 1 to 0, ``[steps + 1]`` float64."""
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)

    def run(self, job: Job) -> Tensor:
        """Generate the ids; after the last step no free position is masked."""
        ids_BL = torch.where(job.free_BL, job.model.mask, job.ids_BL)
        levels = self.levels().to(ids_BL.device)
        query = job.query(ids_BL, 1.0)
        for number in range(self.steps):
            ids_BL = self._step(job, query, ids_BL, number, levels[number], levels[number + 1])
            job.on_step(ids_BL)
        return ids_BL

    def _step(
        self, job: Job, query: Query, ids_BL: Tensor, number: int, t: Tensor, s: Tensor
    ) -> Tensor:
        """Reveal some of the masked tokens; without an evaluation if none is revealed."""
        schedule = job.objective.schedule.exact()
        stay = stay_masked(schedule.alpha(s), schedule.alpha(t))
        uniform_BL = job.draws.uniform(f"reveal/{number}", job.position_B, ids_BL.shape[1])
        reveal_BL = job.free_BL & (ids_BL == job.model.mask) & (uniform_BL >= stay)
        if not bool(reveal_BL.any()):
            return ids_BL
        query = replace(
            query,
            ids_BL=ids_BL,
            level_BK=t.float().expand(len(ids_BL), 1),
            predict_mask_BL=reveal_BL,
        )
        drawn_M = job.ask(query, partial(self._drawn, job, reveal_BL, number))
        return ids_BL.masked_scatter(reveal_BL, drawn_M)

    def _drawn(self, job: Job, reveal_BL: Tensor, number: int, prediction: Prediction) -> Tensor:
        """Sample a token for each revealed position, ``[M]``."""
        assert prediction.logits is not None
        row_M, column_M = reveal_BL.nonzero(as_tuple=True)
        position_M = job.position_B[row_M]
        return prediction.logits.sample(
            job.draws, f"token/{number}", position_M, column_M, self.temperature
        )
