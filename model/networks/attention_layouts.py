"""Attention layouts: which keys a query may attend to, by their places alone.

A layout is a value that is set on every attention layer before a pass; it is the same for all
samples. What differs between samples travels with them: padding, and the ids of segments
(documents that share a sequence), whose positions attend to one another only.

Each layout is one rule ``rule(q, k) -> bool`` over places. Dense masks for scaled dot-product
attention and block masks for flex attention (:mod:`model.networks.attention`) are both made of
it; where all is seen there is no rule, and flash attention runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from model.draws import Draws

Rule = Callable[[Tensor, Tensor], Tensor]
"""Of queries and keys (int64, broadcast against each other), which pairs attend: bool."""


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """All keys are seen. Other layouts derive from it; each is hashable."""

    def rule(self, length: int, device: torch.device) -> Rule | None:
        """Which of ``length`` queries see which keys; None where all see all."""
        return None

    def sees_all(self, length: int) -> bool:
        """Whether :meth:`rule` is None."""
        return True

    def places(self, length: int) -> range | None:
        """The positions of ``length`` queries, for rotary or learned embeddings; None from 0 on."""
        return None


@dataclass(frozen=True, kw_only=True)
class Full(AttentionLayout):
    """Bidirectional: every position sees all."""


@dataclass(frozen=True, kw_only=True)
class Causal(AttentionLayout):
    """No position sees a later one."""

    def sees_all(self, length: int) -> bool:
        """Never."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """k <= q."""
        return lambda q, k: k <= q


@dataclass(frozen=True, kw_only=True)
class Opening(AttentionLayout):
    """Between causal and full, while a causal model becomes a denoiser.

    At step n of N a query sees all earlier keys, and each later one with probability n / N
    (Gong et al. 2025, "Scaling diffusion language models via adaptation from autoregressive
    models", section 3.2). The mask is drawn for the step and serves all samples, heads and
    layers, so that no parallel layout can change it.

    Args:
        step: from 1; steps: N.
    """

    draws: Draws
    step: int
    steps: int

    def sees_all(self, length: int) -> bool:
        """Never."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """k <= q, or drawn."""
        place = torch.arange(length, device=device)
        coordinate = place[:, None] * length + place
        uniform_LL = self.draws.uniform_at(
            "annealing", torch.full_like(coordinate, self.step), coordinate
        )
        opened_LL = uniform_LL < self.step / self.steps
        return lambda q, k: (k <= q) | opened_LL[q, k]


@dataclass(frozen=True, kw_only=True)
class Blocks(AttentionLayout):
    """A noisy text and its clean copy, one behind the other, in blocks.

    A noisy block sees itself and the clean blocks before it; a clean block sees itself and the
    clean blocks before it (Arriola et al. 2025, BD3-LM, section 3.1 and appendix). The copy has
    the positions of the text.

    Args:
        size: positions of a block.
    """

    size: int

    def sees_all(self, length: int) -> bool:
        """Never."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """Over ``[noisy | clean]``, ``length`` in all."""
        half, size = length // 2, self.size

        def seen(q: Tensor, k: Tensor) -> Tensor:
            of_q, of_k = q % half // size, k % half // size
            to_noisy = (q < half) & (of_q == of_k)
            to_clean = torch.where(q < half, of_k < of_q, of_k <= of_q)
            return torch.where(k < half, to_noisy, to_clean)

        return seen

    def places(self, length: int) -> range | None:
        """Those of one copy; the other has the same."""
        return range(length // 2)


@dataclass(frozen=True, kw_only=True)
class Cached(AttentionLayout):
    """Queries that go on behind keys and values of earlier passes.

    Args:
        past: how many positions are cached; the queries stand behind them.
        keep: whether the keys and values of this pass are cached as well.
        causal: no query sees a later one; else they see one another.
    """

    past: int = 0
    keep: bool = True
    causal: bool = False

    def sees_all(self, length: int) -> bool:
        """Where no query has a later one."""
        return not self.causal or length == 1

    def rule(self, length: int, device: torch.device) -> Rule | None:
        """Over all cached keys, and those of the queries behind them."""
        return None if self.sees_all(length) else lambda q, k: k <= self.past + q

    def places(self, length: int) -> range:
        """Behind the cache."""
        return range(self.past, self.past + length)


FULL = Full()


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def dense_mask(
    layout: AttentionLayout, num_queries: int, num_keys: int, device: torch.device
) -> Tensor | None:
    """Which keys (columns) each query sees, bool ``[Q, K]``; None where all are seen."""
    rule = layout.rule(num_queries, device)
    if rule is None:
        return None
    query_Q, key_K = (torch.arange(num, device=device) for num in (num_queries, num_keys))
    return rule(query_Q[:, None], key_K[None, :]).expand(num_queries, num_keys)
