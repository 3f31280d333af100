"""Samplers of the Gaussian process, one published procedure per file.

A sampler is a plan of indices and a step from one to the next; the loop over them is
:func:`model.generate_embeddings.generate_embeddings`.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class GaussianSampler(Protocol):
    """A plan and a step."""

    @property
    def steps(self) -> int:
        """Evaluations of the network."""

    @property
    def clamp_below(self) -> float:
        """At levels up to this one the prediction is replaced by the nearest embedding."""

    def step(
        self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, noise: Callable[[], Tensor]
    ) -> Tensor:
        """The embeddings at index j < i; ``noise`` draws standard normals of their shape."""


def plan(num_steps: int, steps: int) -> list[int]:
    """Indices ``[steps + 1]`` from T - 1 down to -1, evenly spaced over T.

    Raises:
        ValueError: more steps than there are indices.
    """
    if steps > num_steps:
        raise ValueError(f"{steps} steps, but the process has only {num_steps}")
    levels = torch.linspace(num_steps, 0, steps + 1, dtype=torch.float64)
    return [int(level) - 1 for level in levels.round().tolist()]


def check(steps: int, clamp_below: float) -> None:
    """ValueError where they are out of range."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not 0.0 <= clamp_below <= 1.0:
        raise ValueError(f"clamp_below must lie in [0, 1], not {clamp_below}")
