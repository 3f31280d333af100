"""DDPM ancestral sampling (Ho et al. 2020, algorithm 2), with any stride of the indices.

A stride uses the exact posterior from i to j. (GENIE's public code skips indices but
keeps the coefficients of single steps, which is a different, wrong process.)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.processes.gaussian import posterior
from model.samplers._gaussian import GaussianSampler, Normal


@dataclass(frozen=True, kw_only=True)
class Ddpm(GaussianSampler):
    """DDPM steps: draws from the posterior, with noise at each step but the last.

    Args:
        steps: number of network evaluations.
        variance: the posterior's (small), or the forward step's (large, as in GENIE).
        clamp_below: clamp the predicted x_0 to the nearest embedding at noise levels up to this
            one; 1 always, 0 never.
    """

    steps: int = 50
    variance: Literal["small", "large"] = "large"
    clamp_below: float = 1.0

    def move(self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, normal: Normal) -> Tensor:
        """Sample from q(x_j | x_i, x_0); at j = -1 take its mean, x_0."""
        move = posterior(abar_i, abar_j)
        mean = x * move.of_x.to(x.dtype) + x0 * move.of_x0.to(x.dtype)
        variance = move.small if self.variance == "small" else move.large
        variance = torch.where(abar_j == 1.0, 0.0, variance)
        if not bool(variance.any()):
            return mean
        return mean + normal() * variance.sqrt().to(x.dtype)
