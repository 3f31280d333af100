"""Cosine-squared schedule alpha(t) = eps + (1 - eps) cos(pi t / 2)^2, with alpha(1/2) = 1/2.

MDLM's ``cosine2`` (Sahoo et al. 2024, appendix); the form of Nichol & Dhariwal 2021.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.schedules import WithFloor


@dataclass(frozen=True, kw_only=True)
class CosineSquared(WithFloor):
    """Cosine-squared noise schedule: slow at both ends.

    Args:
        eps: alpha(1), above 0 in training.
    """

    def shape(self, t: Tensor) -> Tensor:
        """cos(pi t / 2)^2."""
        return torch.cos(t * (math.pi / 2)).square()

    def dshape(self, t: Tensor) -> Tensor:
        """-(pi / 2) sin(pi t)."""
        return torch.sin(t * math.pi) * (-math.pi / 2)

    def inverse(self, shape: Tensor) -> Tensor:
        """(2 / pi) arccos(sqrt(shape))."""
        return torch.arccos(shape.sqrt()) * (2 / math.pi)
