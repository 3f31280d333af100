"""Log-uniform schedule: the masked share is geometric in t, 1 - alpha(t) = least^(1-t).

Then the weight -alpha' / (1 - alpha) of the continuous-time bound is the constant -log(least):
every masked token counts the same. MDLM's ``change_of_variables``; its ``importance_sampling``
draws the same shares under another schedule (:attr:`model.objectives.mdlm.Mdlm.times`).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from model.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class LogUniform(Schedule):
    """Log-uniform masked share: the loss weighs every masked token alike.

    Args:
        least: masked share at time 0, above 0.
    """

    least: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 0.01:
            raise ValueError(f"least must lie in (0, 0.01], not {self.least}")

    def alpha(self, t: Tensor) -> Tensor:
        """1 - least^(1 - t)."""
        return -((1 - t) * math.log(self.least)).expm1()

    def dalpha(self, t: Tensor) -> Tensor:
        """log(least) least^(1 - t)."""
        return math.log(self.least) * ((1 - t) * math.log(self.least)).exp()

    def time(self, alpha: Tensor) -> Tensor:
        """1 - log(1 - alpha) / log(least)."""
        return (1 - (-alpha).log1p() / math.log(self.least)).clamp(0, 1)
