"""Cosine schedule alpha(t) = eps + (1 - eps) cos(pi t / 2), with alpha(1/2) = .7071.

One of MDLM's two cosine forms; the other, 1 - cos(pi (1 - t) / 2), has alpha(1/2) = .2929.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.schedules import WithFloor


@dataclass(frozen=True, kw_only=True)
class Cosine(WithFloor):
    """Cosine noise schedule: slow at first, fast at the end.

    Args:
        eps: alpha(1), above 0 in training.
    """

    def shape(self, t: Tensor) -> Tensor:
        """cos(pi t / 2)."""
        return torch.cos(t * (math.pi / 2))

    def dshape(self, t: Tensor) -> Tensor:
        """-(pi / 2) sin(pi t / 2)."""
        return torch.sin(t * (math.pi / 2)) * (-math.pi / 2)

    def inverse(self, shape: Tensor) -> Tensor:
        """(2 / pi) arccos(shape)."""
        return torch.arccos(shape) * (2 / math.pi)
