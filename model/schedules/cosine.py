"""Cosine schedule alpha(t) = eps + (1 - eps) cos(pi t / 2), with alpha(1/2) = .7071.

One of MDLM's two cosine forms; the other, 1 - cos(pi (1 - t) / 2), has alpha(1/2) = .2929.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Cosine noise schedule: slow at first, fast at the end.

    Args:
        eps: alpha(1), above 0 in training.
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"eps must lie in [0, 1), not {self.eps}")

    def alpha(self, t: Tensor) -> Tensor:
        """Eps + (1 - eps) cos(pi t / 2)."""
        return self.eps + (1 - self.eps) * torch.cos(t * (math.pi / 2))

    def dalpha(self, t: Tensor) -> Tensor:
        """-(1 - eps) (pi / 2) sin(pi t / 2)."""
        return (self.eps - 1) * (math.pi / 2) * torch.sin(t * (math.pi / 2))

    def time(self, alpha: Tensor) -> Tensor:
        """(2 / pi) arccos((alpha - eps) / (1 - eps))."""
        return torch.arccos(((alpha - self.eps) / (1 - self.eps)).clamp(0, 1)) * (2 / math.pi)

    def exact(self) -> "Cosine":
        """eps = 0: alpha runs from 1 to 0."""
        return dataclasses.replace(self, eps=0.0)
