"""Small joint distributions whose exact conditionals stand in for a trained network."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.config import ModelConfig


class Conditionals(ABC):
    """Exact conditionals of a distribution given by its sequences and their probabilities."""

    @property
    @abstractmethod
    def outcomes(self) -> Tensor:
        """Every sequence with nonzero probability, ``[N, L]``."""

    @property
    @abstractmethod
    def probability(self) -> Tensor:
        """The probability of each sequence, ``[N]``."""

    @property
    @abstractmethod
    def vocab(self) -> int:
        """V, the vocabulary size."""

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.vocab

    @property
    def config(self) -> ModelConfig:
        """A model configuration with the distribution's vocabulary, for objectives."""
        return DiT(vocab_size=self.vocab, width=2, num_heads=1)

    @property
    def log_prob(self) -> Tensor:
        """log p of every outcome, ``[N]``."""
        return self.probability.log()

    def masked_log_prob(self, ids_BL: Tensor) -> Tensor:
        """log p of the visible tokens, marginalized over the masked ones, ``[B]``."""
        return (self._agree(ids_BL) @ self.probability).log()

    def denoise(self, ids_BL: Tensor, level_BK: Tensor, predict_mask_BL: Tensor) -> Tensor:
        """log p(x_i | visible tokens) as logits ``[M, V + 1]``, -inf for [MASK]."""
        asked_B = predict_mask_BL.any(dim=1)
        weight_BN = self._agree(ids_BL[asked_B]) * self.probability
        one_hot_NLV = torch.nn.functional.one_hot(self.outcomes, self.vocab).double()
        marginal_BLV = torch.einsum("bn,nlv->blv", weight_BN, one_hot_NLV)
        logits_BLV = (marginal_BLV / marginal_BLV.sum(-1, keepdim=True)).log()
        return torch.nn.functional.pad(
            logits_BLV[predict_mask_BL[asked_B]], (0, 1), value=-torch.inf
        )

    def _agree(self, ids_BL: Tensor) -> Tensor:
        same_BNL = (ids_BL[:, None] == self.mask) | (ids_BL[:, None] == self.outcomes)
        return same_BNL.all(dim=-1).double()


@dataclass(frozen=True)
class Joint(Conditionals):
    """A joint distribution over all sequences: ``p`` is ``[V, ..., V]``, one axis per position."""

    p: Tensor

    @classmethod
    def random(cls, vocab: int, length: int, seed: int = 0) -> "Joint":
        """A random distribution in which no sequence is rare."""
        number = torch.arange(vocab**length)
        weight = 0.1 + Draws(seed=seed, split="joint", batch=1).uniform("weight", number, 1)
        return cls((weight / weight.sum()).view((vocab,) * length))

    @property
    def length(self) -> int:
        """L, the sequence length."""
        return self.p.dim()

    @property
    def vocab(self) -> int:
        """V, the vocabulary size."""
        return self.p.shape[0]

    @property
    def outcomes(self) -> Tensor:
        """Every sequence, ``[V ** L, L]``, in the order of ``p.flatten()``."""
        return torch.tensor(list(itertools.product(range(self.vocab), repeat=self.length)))

    @property
    def probability(self) -> Tensor:
        """See :attr:`Conditionals.probability`."""
        return self.p.flatten()


@dataclass(frozen=True)
class Texts(Conditionals):
    """Distribution of padded texts over two letters: BOS, text, EOS, PAD.

    Args:
        lengths: probability of each length, from one letter on; texts of equal length have
            different probabilities.
    """

    lengths: Sequence[float]

    BOS, EOS, PAD, LETTERS = 0, 1, 2, (3, 4)

    @property
    def vocab(self) -> int:
        """V, the vocabulary size."""
        return 5

    @cached_property
    def _texts(self) -> list[tuple[int, ...]]:
        most = len(self.lengths)
        return [
            text
            for num in range(1, most + 1)
            for text in itertools.product(self.LETTERS, repeat=num)
        ]

    @cached_property
    def num_letters(self) -> Tensor:
        """The number of letters of every outcome, ``[N]``."""
        return torch.tensor([len(text) for text in self._texts])

    @cached_property
    def outcomes(self) -> Tensor:
        """See :attr:`Conditionals.outcomes`: ``[N, L]``, L two more than the longest text."""
        most = len(self.lengths)
        rows = [[self.BOS, *t, self.EOS] + [self.PAD] * (most - len(t)) for t in self._texts]
        return torch.tensor(rows)

    @cached_property
    def probability(self) -> Tensor:
        """See :attr:`Conditionals.probability`."""
        number = torch.arange(len(self._texts))
        weight = 0.1 + Draws(seed=0, split="texts", batch=1).uniform("weight", number, 1)[:, 0]
        share = weight / self._over_length(weight)
        return share * torch.tensor(self.lengths, dtype=torch.float64)[self.num_letters - 1]

    @property
    def log_prob_of_length(self) -> Tensor:
        """log p of every outcome's length, ``[N]``."""
        return torch.tensor(self.lengths, dtype=torch.float64).log()[self.num_letters - 1]

    def _over_length(self, value_N: Tensor) -> Tensor:
        """For every outcome, the sum over all outcomes of the same length, ``[N]``."""
        zeros = torch.zeros(len(self.lengths) + 1, dtype=value_N.dtype)
        return zeros.index_add(0, self.num_letters, value_N)[self.num_letters]
