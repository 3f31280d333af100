"""Log-linear schedule alpha(t) = 1 - (1 - eps) t, named for its total noise -log alpha (SEDD)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.schedules import WithFloor


@dataclass(frozen=True, kw_only=True)
class LogLinear(WithFloor):
    """Log-linear noise schedule (SEDD, MDLM): corrupts a share (1 - eps) t of the tokens.

    Args:
        eps: alpha(1), above 0 in training.
    """

    def shape(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t

    def dshape(self, t: Tensor) -> Tensor:
        """-1."""
        return -torch.ones_like(t)

    def inverse(self, shape: Tensor) -> Tensor:
        """1 - shape."""
        return 1 - shape
