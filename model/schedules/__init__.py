"""Noise schedules: how much of the data survives at time t. One file each."""

from typing import Protocol

from torch import Tensor


class Schedule(Protocol):
    """A decreasing survival probability alpha on [0, 1], from 1 to about 0."""

    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is still itself at time t."""

    def dalpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha by t; negative."""

    def time(self, alpha: Tensor) -> Tensor:
        """The inverse of alpha."""

    def exact(self) -> "Schedule":
        """The same without the small constants that only training needs."""
