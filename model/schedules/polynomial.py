"""Polynomial schedule alpha(t) = eps + (1 - eps) (1 - t^power) (Shi et al. 2024, MD4, table 4)."""

from dataclasses import dataclass

from torch import Tensor

from model.schedules import WithFloor


@dataclass(frozen=True, kw_only=True)
class Polynomial(WithFloor):
    """Polynomial noise schedule: 1 - t^power; power 1 is log-linear.

    Args:
        eps: alpha(1), above 0 in training.
        power: w, above 0; above 1 the noise begins slowly.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.power <= 100.0:
            raise ValueError(f"power must lie in (0, 100], not {self.power}")

    def shape(self, t: Tensor) -> Tensor:
        """1 - t^power."""
        return 1 - t**self.power

    def dshape(self, t: Tensor) -> Tensor:
        """-power t^(power - 1)."""
        return -self.power * t ** (self.power - 1)

    def inverse(self, shape: Tensor) -> Tensor:
        """(1 - shape)^(1 / power)."""
        return (1 - shape) ** (1 / self.power)
