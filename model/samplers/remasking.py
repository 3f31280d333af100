"""Ancestral sampling that masks tokens again, and so can correct them (Wang et al. 2025, ReMDM).

From t to s a visible generated token is masked again with probability sigma_t, and a masked one is
revealed with probability (alpha_s - (1 - sigma_t) alpha_t) / (1 - alpha_t), so that a share
1 - alpha_s is masked at every time s, whatever sigma_t is (theorem 3.1). It is at most
sigma_max = min(1, (1 - alpha_s) / alpha_t), which is 0 in the last step.

The paper's schedules of sigma_t (section 4.1): ``cap`` is min(eta, sigma_max), ``rescale`` is eta
times sigma_max. Each step masks anew, so that more steps revise more tokens.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from model.samplers import Job, check_steps
from model.samplers._masked import MaskedSampler, even_times


@dataclass(frozen=True, kw_only=True)
class Remasking(MaskedSampler):
    """Unmask tokens at random positions, and mask some of them again for correction.

    Args:
        steps: maximum number of network evaluations.
        eta: how many tokens are masked again per step, in [0, 1]; 0 is ancestral sampling.
        schedule: the probability of a visible token: at most eta (``cap``), or the share eta of
            the largest possible one (``rescale``).
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
    """

    steps: int = 64
    eta: float = 0.02
    schedule: Literal["cap", "rescale"] = "cap"
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    def run(self, job: Job) -> Tensor:
        """Generate the ids; after the last step no free position is masked."""
        ids_BL = self.start(job)
        query, length = job.query(ids_BL, 1.0), ids_BL.shape[1]
        alphas = job.objective.schedule.exact().alpha
        for number, (t, s) in enumerate(pairwise(even_times(self.steps).to(ids_BL.device))):
            alpha_t, alpha_s = alphas(t), alphas(s)
            again = self.remasked(alpha_t, alpha_s)
            stay = (1 - alpha_s - again * alpha_t) / (1 - alpha_t)
            masked_BL = job.free_BL & (ids_BL == job.model.mask)
            uniform_BL = job.draws.uniform(f"reveal/{number}", job.position_B, length)
            reveal_BL = masked_BL & (uniform_BL >= stay)
            uniform_BL = job.draws.uniform(f"remask/{number}", job.position_B, length)
            again_BL = job.free_BL & ~masked_BL & (uniform_BL < again)
            step = reveal_BL, t.float().expand(len(ids_BL), 1)
            ids_BL = self.fill(job, query, ids_BL, step, number)
            ids_BL = torch.where(again_BL, job.model.mask, ids_BL)
            job.on_step(ids_BL)
        return ids_BL

    def remasked(self, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
        """sigma_t, the probability with which a visible token is masked again from t to s."""
        # At t = 1 nothing is visible, and alpha_t is 0.
        most = ((1 - alpha_s) / alpha_t).nan_to_num(nan=0.0).clamp(max=1.0)
        return most.clamp(max=self.eta) if self.schedule == "cap" else self.eta * most
