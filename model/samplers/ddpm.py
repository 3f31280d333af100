"""Ancestral sampling (Ho et al. 2020, algorithm 2), over any stride of the indices.

A stride takes the exact posterior from i to j. (Public code of GENIE skips indices and
keeps the coefficients of single steps, which is another, wrong, process.)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.processes.gaussian import posterior
from model.samplers._gaussian import GaussianSampler, Normal


@dataclass(frozen=True, kw_only=True)
class Ddpm(GaussianSampler):
    """Steps of the posterior, with noise at each but the last.

    Args:
        steps: evaluations of the network.
        variance: of the posterior (small), or of the forward step (large, GENIE's choice).
        clamp_below: clamp to the nearest embedding at levels up to this one; 1 always, 0 never.
    """

    steps: int = 50
    variance: Literal["small", "large"] = "large"
    clamp_below: float = 1.0

    def move(self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, normal: Normal) -> Tensor:
        """A draw from q(x_j | x_i, x_0); at j = -1 its mean, which is x_0."""
        move = posterior(abar_i, abar_j)
        mean = x * move.of_x.to(x.dtype) + x0 * move.of_x0.to(x.dtype)
        variance = move.small if self.variance == "small" else move.large
        variance = torch.where(abar_j == 1.0, 0.0, variance)
        if not bool(variance.any()):
            return mean
        return mean + normal() * variance.sqrt().to(x.dtype)
