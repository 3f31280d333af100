"""Importance sampling of the noise index, by the second moment of its recent losses.

Nichol & Dhariwal 2021, section 3.3: p_i is proportional to sqrt(E[L_i^2]) over the last 10
losses of index i, mixed with 0.001 of uniform, once every index has 10 losses; the loss is
weighted by 1 / (T p_i), so that its expectation is unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

UNIFORM_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class SecondMoment:
    """Loss-aware sampler of T indices, with state ``losses`` [T, K] float64, ``seen`` [T] int64.

    Args:
        history: K, the number of losses kept per index.
    """

    num_steps: int
    history: int = 10

    def init_state(self) -> dict[str, Tensor]:
        """State with no losses seen."""
        return {
            "losses": torch.zeros(self.num_steps, self.history, dtype=torch.float64),
            "seen": torch.zeros(self.num_steps, dtype=torch.int64),
        }

    def probabilities(self, state: Mapping[str, Tensor]) -> Tensor:
        """p ``[T]`` float64: uniform until every index has K losses."""
        uniform = 1 / self.num_steps
        if bool((state["seen"] < self.history).any()):
            return torch.full((self.num_steps,), uniform, dtype=torch.float64)
        root = state["losses"].square().mean(dim=1).sqrt()
        return (1 - UNIFORM_SHARE) * root / root.sum() + UNIFORM_SHARE * uniform

    def draw(self, u_B1: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sample indices and weights 1 / (T p), ``[B, 1]`` each, by inverse-CDF sampling."""
        p = self.probabilities(state)
        cumulative = p.cumsum(dim=0)
        u = u_B1.cpu() * cumulative[-1]
        index_B1 = torch.searchsorted(cumulative, u, right=True).clamp(max=self.num_steps - 1)
        weight_B1 = 1 / (self.num_steps * p[index_B1])
        return index_B1.to(u_B1.device), weight_B1.to(u_B1.device)

    def update_state(
        self, state: Mapping[str, Tensor], index_N: Tensor, losses_N: Tensor
    ) -> dict[str, Tensor]:
        """State with new losses added, in the order given; each index keeps its last K."""
        losses, seen = state["losses"].clone(), state["seen"].clone()
        for index, loss in zip(index_N.tolist(), losses_N.double().tolist(), strict=True):
            losses[index, seen[index] % self.history] = loss
            seen[index] += 1
        return {"losses": losses, "seen": seen}
