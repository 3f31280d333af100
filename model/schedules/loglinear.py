"""Log-linear schedule alpha(t) = 1 - (1 - eps) t, named for its total noise -log alpha (SEDD)."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LogLinear:
    """Log-linear noise schedule (SEDD, MDLM): corrupts a share (1 - eps) t of the tokens.

    Args:
        eps: alpha(1), above 0 in training.
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.eps < 1.0:
            raise ValueError(f"eps must lie in [0, 1), not {self.eps}")

    def alpha(self, t: Tensor) -> Tensor:
        """1 - (1 - eps) t."""
        return 1 - (1 - self.eps) * t

    def dalpha(self, t: Tensor) -> Tensor:
        """-(1 - eps)."""
        return torch.full_like(t, self.eps - 1)

    def time(self, alpha: Tensor) -> Tensor:
        """(1 - alpha) / (1 - eps)."""
        return (1 - alpha) / (1 - self.eps)

    def exact(self) -> "LogLinear":
        """eps = 0: alpha runs from 1 to 0."""
        return dataclasses.replace(self, eps=0.0)
