"""Small joint distributions whose exact conditionals stand in for a trained network."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.draws import Draws


@dataclass(frozen=True)
class Joint:
    """A probability of every sequence: ``p`` is ``[V, ..., V]``, one axis per position."""

    p: Tensor

    @classmethod
    def random(cls, vocab: int, length: int, seed: int = 0) -> "Joint":
        """Some distribution under which no sequence is rare."""
        number = torch.arange(vocab**length)
        weight = 0.1 + Draws(seed=seed, split="joint", batch=1).uniform("weight", number, 1)
        return cls((weight / weight.sum()).view((vocab,) * length))

    @property
    def length(self) -> int:
        """L."""
        return self.p.dim()

    @property
    def vocab(self) -> int:
        """V."""
        return self.p.shape[0]

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.vocab

    @property
    def config(self) -> ModelConfig:
        """What objectives ask of a model: its ids."""
        return ModelConfig(vocab_size=self.vocab, width=2, num_heads=1)

    @property
    def outcomes(self) -> Tensor:
        """Every sequence, ``[V ** L, L]``, in the order of ``p.flatten()``."""
        return torch.tensor(list(itertools.product(range(self.vocab), repeat=self.length)))

    @property
    def log_prob(self) -> Tensor:
        """log p of every outcome, ``[V ** L]``."""
        return self.p.flatten().log()

    def masked_log_prob(self, ids_BL: Tensor) -> Tensor:
        """log p of the visible tokens, the masked ones summed out: ``[B]``."""
        return (self._agree(ids_BL) @ self.p.flatten()).log()

    def denoise(self, ids_BL: Tensor, level_BK: Tensor, where_BL: Tensor) -> Tensor:
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
