"""Ancestral sampling (Ho et al. 2020, algorithm 2), over any stride of the indices.

A stride takes the exact posterior from i to j. (Public code of GENIE skips indices and
keeps the coefficients of single steps, which is another, wrong, process.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.gaussian_samplers import check
from model.processes.gaussian import posterior


@dataclass(frozen=True, kw_only=True)
class Ddpm:
    """Args:
    steps: evaluations of the network.
    variance: of the posterior (small), or of the forward step (large, GENIE's choice).
    clamp_below: clamp to the nearest embedding at levels up to this one; 1 always, 0 never.
    """

    steps: int = 50
    variance: Literal["small", "large"] = "large"
    clamp_below: float = 1.0

    def __post_init__(self) -> None:
        check(self.steps, self.clamp_below)

    def step(
        self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, noise: Callable[[], Tensor]
    ) -> Tensor:
        """A draw from q(x_j | x_i, x_0); at j = -1 its mean, which is x_0."""
        move = posterior(abar_i, abar_j)
        mean = x * float(move.of_x) + x0 * float(move.of_x0)
        if float(abar_j) == 1.0:
            return mean
        variance = move.small if self.variance == "small" else move.large
        return mean + noise() * float(variance.sqrt())
