"""DDIM sampling (denoising diffusion implicit models, Song et al. 2021, eq. 12), any stride."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.processes.gaussian import implicit, to_eps
from model.samplers._gaussian import GaussianSampler, Normal


@dataclass(frozen=True, kw_only=True)
class Ddim(GaussianSampler):
    """DDIM steps: deterministic, or with a share of the posterior's noise.

    Args:
        steps: number of network evaluations.
        eta: 0 is deterministic after the first draw, 1 has the posterior's variance.
        clamp_below: clamp the predicted x_0 to the nearest embedding at noise levels up to this
            one; 1 always, 0 never.
    """

    steps: int = 50
    eta: float = 0.0
    clamp_below: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")

    def move(self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, normal: Normal) -> Tensor:
        """A DDIM step to index j; see :meth:`GaussianSampler.move`."""
        move = implicit(abar_i, abar_j, self.eta)
        eps = to_eps(x0, x, abar_i.to(x.dtype))
        moved = x0 * move.of_x0.to(x.dtype) + eps * move.of_eps.to(x.dtype)
        if bool(move.variance.any()):
            moved = moved + normal() * move.variance.sqrt().to(x.dtype)
        return torch.where(abar_i == abar_j, x, moved)
