"""Geometric schedule: the total noise grows geometrically, sigma_min^(1-t) sigma_max^t (SEDD).

Lou et al. 2024. The defaults are SEDD's; MDLM's code has 1e-3 and 1, after which a third of the
tokens would survive.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from model.schedules import FromNoise, check_end


@dataclass(frozen=True, kw_only=True)
class Geometric(FromNoise):
    """Geometric noise schedule: very little noise for most of the time.

    Args:
        sigma_min: total noise at time 0, above 0.
        sigma_max: total noise at time 1.
    """

    sigma_min: float = 1e-4
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min <= 0.01:
            raise ValueError(f"sigma_min must lie in (0, 0.01], not {self.sigma_min}")
        check_end(self.sigma_max)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_min^(1-t) sigma_max^t."""
        return self.sigma_min * (t * self._log_ratio).exp()

    def dsigma(self, t: Tensor) -> Tensor:
        """log(sigma_max / sigma_min) sigma(t)."""
        return self._log_ratio * self.sigma(t)

    def inverse(self, sigma: Tensor) -> Tensor:
        """log(sigma / sigma_min) / log(sigma_max / sigma_min)."""
        return (sigma / self.sigma_min).log() / self._log_ratio
