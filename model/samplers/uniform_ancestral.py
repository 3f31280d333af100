"""Ancestral sampling for uniform-noise diffusion (Schiff et al. 2024, section 4).

Every free position starts with a uniformly random id. From t to s each is sampled again from
q(x_s | x_t, x_theta), with the prediction in place of the clean text; it may change at every step.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from model.categorical import Categorical
from model.prediction import Prediction
from model.processes import uniform
from model.samplers import Job, Sampler, check_steps, check_temperature, check_top_p


@dataclass(frozen=True, kw_only=True)
class UniformAncestral(Sampler):
    """Denoise uniformly random ids; every token is sampled again at every step.

    Args:
        steps: number of network evaluations.
        temperature: temperature of the prediction, not of the noise; 0 predicts the likeliest id.
        top_p: nucleus of the prediction: keep only its likeliest ids with this total probability.
        greedy_tail: take the likeliest id of the last prediction instead of sampling
            (Sahoo et al. 2025, "The diffusion duality", greedy-tail sampler).
    """

    undoes = ("uniform",)

    steps: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    greedy_tail: bool = False

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_temperature(self.temperature)
        check_top_p(self.top_p)

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    def levels(self) -> Tensor:
        """Times evenly spaced from 1 to 0, ``[steps + 1]`` float64."""
        return torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)

    def run(self, job: Job) -> Tensor:
        """Generate the ids; the network is not evaluated if no position is free."""
        noise_BL = job.draws.uniform("start", job.position_B, job.ids_BL.shape[1])
        start_BL = uniform.random_ids(noise_BL, job.model)
        ids_BL = torch.where(job.free_BL, start_BL, job.ids_BL)
        query = job.query(ids_BL, 1.0)
        levels = self.levels().to(ids_BL.device)
        for number in range(self.steps):
            if bool(job.free_BL.any()):
                level_BK = levels[number].float().expand(len(ids_BL), 1)
                query = replace(query, ids_BL=ids_BL, level_BK=level_BK)
                read = partial(self._drawn, job, ids_BL, number, levels[number : number + 2])
                ids_BL = ids_BL.masked_scatter(job.free_BL, job.ask(query, read))
            job.on_step(ids_BL)
        return ids_BL

    def _drawn(
        self, job: Job, ids_BL: Tensor, number: int, levels: Tensor, prediction: Prediction
    ) -> Tensor:
        """Sample a token for each free position, ``[M]``."""
        assert prediction.logits is not None
        row_M, column_M = job.free_BL.nonzero(as_tuple=True)
        place = (job.draws, f"token/{number}", job.position_B[row_M], column_M)
        if self.greedy_tail and number == self.steps - 1:
            return prediction.logits.sample(*place, 0.0)
        alpha_t, alpha_s = job.objective.schedule.exact().alpha(levels)
        x_theta = self._sharpened(prediction.logits)
        noisy_M = ids_BL[row_M, column_M]
        reverse = uniform.posterior(x_theta, noisy_M, alpha_s, alpha_t, job.model)
        return reverse.sample(*place, 1.0)

    def _sharpened(self, prediction: Categorical) -> Categorical:
        """Apply temperature, then top-p, to the prediction."""
        if self.temperature == 0.0:
            best_M = prediction.rows.best(prediction.logits_MR)
            return Categorical(prediction.one_hot(best_M).log(), prediction.rows)
        sharp = Categorical(prediction.logits_MR.float() / self.temperature, prediction.rows)
        return sharp if self.top_p == 1.0 else sharp.top_p(self.top_p)
