"""Small joint distributions whose exact conditionals stand in for a trained network."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig


@dataclass(frozen=True)
class Joint:
    """A probability of every sequence: ``p`` is ``[V, ..., V]``, one axis per position."""

    p: Tensor

    @property
    def length(self) -> int:
        return self.p.dim()

    @property
    def vocab(self) -> int:
        return self.p.shape[0]

    @property
    def mask(self) -> int:
        return self.vocab

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(vocab_size=self.vocab, width=2, num_heads=1)

    @property
    def outcomes(self) -> Tensor:
        """Every sequence, ``[V ** L, L]``, in the order of ``p.flatten()``."""
        return torch.tensor(list(itertools.product(range(self.vocab), repeat=self.length)))

    def masked_log_prob(self, ids_BL: Tensor) -> Tensor:
        """log p of the visible tokens, the masked ones summed out: ``[B]``."""
        return (self._agree(ids_BL) @ self.p.flatten()).log()

    def denoise(self, ids_BL: Tensor, level_B1: Tensor, where_BL: Tensor) -> Tensor:
        """log p(x_i | visible tokens) as logits ``[M, V + 1]``, -inf for [MASK]."""
        asked_B = where_BL.any(dim=1)
        weight_BN = self._agree(ids_BL[asked_B]) * self.p.flatten()
        one_hot_NLV = torch.nn.functional.one_hot(self.outcomes, self.vocab).double()
        marginal_BLV = torch.einsum("bn,nlv->blv", weight_BN, one_hot_NLV)
        logits_BLV = (marginal_BLV / marginal_BLV.sum(-1, keepdim=True)).log()
        return torch.nn.functional.pad(logits_BLV[where_BL[asked_B]], (0, 1), value=-torch.inf)

    def _agree(self, ids_BL: Tensor) -> Tensor:
        same_BNL = (ids_BL[:, None] == self.mask) | (ids_BL[:, None] == self.outcomes)
        return same_BNL.all(dim=-1).double()


@pytest.fixture(scope="session")
def two_tokens() -> Joint:
    return Joint(torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64))


@pytest.fixture(scope="session")
def three_tokens() -> Joint:
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(3, 3, 3, generator=generator, dtype=torch.float64) + 0.1
    return Joint(weight / weight.sum())


@pytest.fixture(scope="session")
def chi_square() -> Callable[[Tensor, Tensor], float]:
    """Pearson's statistic in standard deviations above its mean: about 0, well below 5.

    Cells of which fewer than five draws are expected are taken together.
    """

    def statistic(counts: Tensor, probability: Tensor) -> float:
        expected = probability.double() * counts.sum()
        assert not counts[expected == 0].any()
        rare = expected < 5
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        degrees = (expected > 0).sum().item() - 1
        terms = ((counts - expected) ** 2 / expected)[expected > 0]
        return float((terms.sum() - degrees) / (2 * degrees) ** 0.5)

    return statistic
