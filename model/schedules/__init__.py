"""Noise schedules alpha(t): the probability that a token is kept at time t. One per file.

The continuous-time bound of a masking process does not depend on the schedule (Sahoo et al. 2024,
section 3.5; Kingma et al. 2021): it changes the variance of the loss, the times at which a
network that sees the time is trained, and how many tokens a sampler reveals per step.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Schedule(ABC):
    """A noise schedule: alpha(t), decreasing on [0, 1] from 1, or just below, to about 0."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is kept at time t."""

    @abstractmethod
    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha with respect to t; negative."""

    @abstractmethod
    def time(self, alpha: Tensor) -> Tensor:
        """Inverse of alpha: the time at which a token is kept with probability ``alpha``."""

    def exact(self) -> "Schedule":
        """The schedule stretched to run from 1 to 0: it masks nothing at 0 and everything at 1."""
        return Stretched(schedule=self)


@dataclass(frozen=True, kw_only=True)
class Stretched(Schedule):
    """(alpha(t) - alpha(1)) / (alpha(0) - alpha(1)) of a schedule."""

    schedule: Schedule

    def alpha(self, t: Tensor) -> Tensor:
        """See the class."""
        first, last = self._ends(t)
        # At the ends exactly 1 and 0, which rounding may miss.
        return ((self.schedule.alpha(t) - last) / (first - last)).clamp(0, 1)

    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of :meth:`alpha`."""
        first, last = self._ends(t)
        return self.schedule.dalpha(t) / (first - last)

    def time(self, alpha: Tensor) -> Tensor:
        """Inverse of :meth:`alpha`."""
        first, last = self._ends(alpha)
        return self.schedule.time(last + alpha * (first - last)).clamp(0, 1)

    def exact(self) -> "Stretched":
        """Itself."""
        return self

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(0) and alpha(1)."""
        return self.schedule.alpha(torch.zeros_like(like)), self.schedule.alpha(
            torch.ones_like(like)
        )


@dataclass(frozen=True, kw_only=True)
class WithFloor(Schedule):
    """Schedules alpha(t) = eps + (1 - eps) shape(t), with a shape that falls from 1 to 0.

    Args:
        eps: alpha(1), above 0 in training.
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"eps must lie in [0, 1), not {self.eps}")

    @abstractmethod
    def shape(self, t: Tensor) -> Tensor:
        """alpha(t) for eps = 0."""

    @abstractmethod
    def dshape(self, t: Tensor) -> Tensor:
        """Derivative of :meth:`shape`."""

    @abstractmethod
    def inverse(self, shape: Tensor) -> Tensor:
        """Inverse of :meth:`shape`, for values in [0, 1]."""

    def alpha(self, t: Tensor) -> Tensor:
        """Eps + (1 - eps) shape(t)."""
        return self.eps + (1 - self.eps) * self.shape(t)

    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of :meth:`alpha`."""
        return (1 - self.eps) * self.dshape(t)

    def time(self, alpha: Tensor) -> Tensor:
        """Inverse of :meth:`alpha`."""
        return self.inverse(((alpha - self.eps) / (1 - self.eps)).clamp(0, 1))

    def exact(self) -> Schedule:
        """eps = 0: alpha runs from 1 to 0."""
        return dataclasses.replace(self, eps=0.0)


class FromNoise(Schedule):
    """Schedules alpha(t) = exp(-sigma(t)), given by the total noise sigma(t) (SEDD, MDLM)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Total noise at time t; increasing."""

    @abstractmethod
    def dsigma(self, t: Tensor) -> Tensor:
        """Derivative of sigma: the noise rate."""

    @abstractmethod
    def inverse(self, sigma: Tensor) -> Tensor:
        """The time of a total noise."""

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-sigma(t))."""
        return torch.exp(-self.sigma(t))

    def dalpha(self, t: Tensor) -> Tensor:
        """-sigma'(t) exp(-sigma(t))."""
        return -self.dsigma(t) * self.alpha(t)

    def time(self, alpha: Tensor) -> Tensor:
        """The time at which the total noise is -log alpha."""
        return self.inverse(-torch.log(alpha)).clamp(0, 1)


MOST_KEPT = 0.02
"""Largest alpha(1) of a schedule: more tokens than that may not survive to the end, since samplers
start from noise only."""


def check_end(sigma_max: float) -> None:
    """Raise ValueError unless total noise ``sigma_max`` leaves less than :data:`MOST_KEPT`."""
    kept = float(torch.exp(torch.tensor(-sigma_max, dtype=torch.float64)))
    if kept > MOST_KEPT:
        raise ValueError(
            f"sigma_max must be at least 4, not {sigma_max}: a token would be kept with "
            f"probability {kept:.2g} at the end, where samplers start from noise only"
        )
