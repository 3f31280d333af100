"""Linear schedule: the total noise grows linearly, alpha(t) = exp(-sigma_max t).

``Linear`` of MDLM's code (with ``sigma_min`` 0). What other papers call linear, alpha(t) = 1 - t,
is :mod:`model.schedules.loglinear`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.schedules import FromNoise, check_end


@dataclass(frozen=True, kw_only=True)
class Linear(FromNoise):
    """Linear noise schedule: a constant rate, so that most tokens are masked early.

    Args:
        sigma_max: total noise at time 1.
    """

    sigma_max: float = 10.0

    def __post_init__(self) -> None:
        check_end(self.sigma_max)

    def sigma(self, t: Tensor) -> Tensor:
        """Sigma_max t."""
        return self.sigma_max * t

    def dsigma(self, t: Tensor) -> Tensor:
        """Sigma_max."""
        return torch.full_like(t, self.sigma_max)

    def inverse(self, sigma: Tensor) -> Tensor:
        """sigma / sigma_max."""
        return sigma / self.sigma_max
