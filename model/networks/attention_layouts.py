"""Attention layouts: attention masks that depend on positions alone.

A layout is set on every attention layer before a forward pass and is the same for all samples.
Masks that differ between samples are passed with them: padding, and segment ids (documents packed
into one sequence), whose positions attend only within their segment.

Each layout is one rule ``rule(q, k) -> bool`` over positions, from which both the dense masks for
scaled dot-product attention and the block masks for flex attention are built
(:mod:`model.networks.attention`). Full attention has no rule and can use flash attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from model.draws import Draws

Rule = Callable[[Tensor, Tensor], Tensor]
"""Attention mask as a function: query and key positions (int64, broadcast together) to bool."""


@dataclass(frozen=True, kw_only=True)
class AttentionLayout:
    """Base of the attention layouts, which are hashable; by default every query sees all keys."""

    def rule(self, length: int, device: torch.device) -> Rule | None:
        """The mask for ``length`` queries; None if all keys are attended to."""
        return None

    def sees_all(self, length: int) -> bool:
        """Whether :meth:`rule` is None."""
        return True

    def places(self, length: int) -> range | None:
        """Position ids of ``length`` queries (rotary or learned positions); None for 0, 1, ..."""
        return None


@dataclass(frozen=True, kw_only=True)
class Full(AttentionLayout):
    """Full bidirectional attention."""


@dataclass(frozen=True, kw_only=True)
class Causal(AttentionLayout):
    """Causal attention: no position attends to a later one."""

    def sees_all(self, length: int) -> bool:
        """Always false."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """k <= q."""
        return lambda q, k: k <= q


@dataclass(frozen=True, kw_only=True)
class Opening(AttentionLayout):
    """Attention mask annealing from causal to full, to adapt an autoregressive model.

    At step n of N a query sees all earlier keys, and each later one with probability n / N
    (Gong et al. 2025, "Scaling diffusion language models via adaptation from autoregressive
    models", section 3.2). One mask is drawn per step for all samples, heads and layers, so it
    does not depend on the parallel layout.

    Args:
        step: from 1; steps: N.
    """

    draws: Draws
    step: int
    steps: int

    def sees_all(self, length: int) -> bool:
        """Always false."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """k <= q, or drawn with probability ``step / steps``."""
        place = torch.arange(length, device=device)
        coordinate = place[:, None] * length + place
        uniform_LL = self.draws.uniform_at(
            "annealing", torch.full_like(coordinate, self.step), coordinate
        )
        opened_LL = uniform_LL < self.step / self.steps
        return lambda q, k: (k <= q) | opened_LL[q, k]


@dataclass(frozen=True, kw_only=True)
class Blocks(AttentionLayout):
    """Block-diffusion attention over a noisy text followed by its clean copy.

    A noisy block attends to itself and to earlier clean blocks; so does a clean block
    (Arriola et al. 2025, BD3-LM, section 3.1 and appendix). The copy has the same position ids
    as the text.

    Args:
        size: positions per block.
    """

    size: int

    def sees_all(self, length: int) -> bool:
        """Always false."""
        return False

    def rule(self, length: int, device: torch.device) -> Rule:
        """The mask over ``[noisy | clean]``, of total length ``length``."""
        half, size = length // 2, self.size

        def seen(q: Tensor, k: Tensor) -> Tensor:
            of_q, of_k = q % half // size, k % half // size
            to_noisy = (q < half) & (of_q == of_k)
            to_clean = torch.where(q < half, of_k < of_q, of_k <= of_q)
            return torch.where(k < half, to_noisy, to_clean)

        return seen

    def places(self, length: int) -> range | None:
        """Position ids of one copy; the other has the same."""
        return range(length // 2)


@dataclass(frozen=True, kw_only=True)
class Cached(AttentionLayout):
    """Attention with a key/value cache: queries follow the cached positions of earlier passes.

    Args:
        past: number of cached positions before the queries.
        keep: whether to add the keys and values of this pass to the cache.
        causal: causal attention among the queries; otherwise full.
    """

    past: int = 0
    keep: bool = True
    causal: bool = False

    def sees_all(self, length: int) -> bool:
        """True unless attention is causal over several queries."""
        return not self.causal or length == 1

    def rule(self, length: int, device: torch.device) -> Rule | None:
        """The mask over the cached keys and the new ones; None if all are attended to."""
        return None if self.sees_all(length) else lambda q, k: k <= self.past + q

    def places(self, length: int) -> range:
        """Position ids after the cached ones."""
        return range(self.past, self.past + length)


FULL = Full()


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def dense_mask(
    layout: AttentionLayout, num_queries: int, num_keys: int, device: torch.device
) -> Tensor | None:
    """Dense attention mask, bool ``[Q, K]``, true where attended to; None for no mask."""
    rule = layout.rule(num_queries, device)
    if rule is None:
        return None
    query_Q, key_K = (torch.arange(num, device=device) for num in (num_queries, num_keys))
    return rule(query_Q[:, None], key_K[None, :]).expand(num_queries, num_keys)
