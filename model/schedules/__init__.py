"""Noise schedules alpha(t): the probability that a token is kept at time t. One per file."""

from typing import Protocol

from torch import Tensor


class Schedule(Protocol):
    """A noise schedule: alpha(t), decreasing on [0, 1] from 1 to about 0."""

    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is kept at time t."""

    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha with respect to t; negative."""

    def time(self, alpha: Tensor) -> Tensor:
        """Inverse of alpha: the time at which a token is kept with probability ``alpha``."""

    def exact(self) -> "Schedule":
        """The schedule without the small constants used in training (alpha from 1 to 0)."""
