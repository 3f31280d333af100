"""Denoising diffusion implicit models (Song et al. 2021, eq. 12), over any stride."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from model.gaussian_samplers import check
from model.processes.gaussian import implicit, to_eps


@dataclass(frozen=True, kw_only=True)
class Ddim:
    """Args:
    steps: evaluations of the network.
    eta: 0 is deterministic after the first draw, 1 has the posterior's variance.
    clamp_below: clamp to the nearest embedding at levels up to this one; 1 always, 0 never.
    """

    steps: int = 50
    eta: float = 0.0
    clamp_below: float = 0.0

    def __post_init__(self) -> None:
        check(self.steps, self.clamp_below)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")

    def step(
        self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, noise: Callable[[], Tensor]
    ) -> Tensor:
        """The embeddings at index j."""
        move = implicit(abar_i, abar_j, self.eta)
        eps = to_eps(x0, x, abar_i.to(x.dtype))
        moved = x0 * float(move.of_x0) + eps * float(move.of_eps)
        if float(move.variance) == 0.0:
            return moved
        return moved + noise() * float(move.variance.sqrt())
