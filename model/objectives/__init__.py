"""Training objectives: one published system per file, each one frozen dataclass.

The dataclass is its own configuration: ``objective: {name: mdlm, ...}`` names the file
and sets its fields. An objective corrupts a batch and turns a prediction into a loss; it
sees no parameters, ranks, vocabulary shards or pipeline stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from model.config import ModelConfig
from model.draws import Draws
from model.prediction import AnyPrediction
from model.query import Query

LEVEL_BUCKETS = 10
"""Equal ranges of the level, over which losses are also reported apart."""

Batch = dict[str, Tensor]
"""``tokens`` [B, L] int64, ``valid`` [B, L] bool, ``position`` [B] int64 in the stream; with
a source also ``source`` [B, S] int64 and ``source_valid`` [B, S] bool. Held-out windows of padded
texts also have ``ending`` [B, L] bool, what the length decides: the last EOS and the padding."""

State = Mapping[str, Tensor]
"""What an objective has learnt of its own losses; empty for most. It is saved with the weights."""

NO_STATE: State = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Noisy(Query):
    """A corrupted batch: what the denoiser reads and what the loss compares it with.

    Args:
        target_BL: int64, the clean ids.
        weight_BK: float32, of each predicted token in the loss.
        count: int64 scalar, the tokens over which the loss is averaged.
        end_noise_BLE: float32, the Gaussian noise that was mixed in, where there is any.
        drafted_B1: bool, the samples that go on from a draft, where there are drafts.
    """

    target_BL: Tensor
    weight_BK: Tensor
    count: Tensor
    end_noise_BLE: Tensor | None = None
    drafted_B1: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """Sums and counts, never means: they are divided once, over the global batch.

    Args:
        loss: scalar with gradient, the sum over the micro-batch.
        level_loss, level_count: ``[LEVEL_BUCKETS]``, the same by range of the level,
            without gradient; a token counts in the bucket of its level.
        sample_loss: ``[B]`` mean loss of each sample's tokens, without weight or gradient.
    """

    loss: Tensor
    level_loss: Tensor
    level_count: Tensor
    sample_loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a held-out bound is a bound on.

    Args:
        length_given: whether it is of the text given its length; an EOS that the length tells
            is then neither predicted nor counted.
        padding: what becomes of it, in words.
        end_masked: whether how a text ends is masked with the text; samplers leave it open then.
    """

    length_given: bool
    padding: str
    end_masked: bool = False


class Objective(ABC):
    """What the trainer, the evaluator and the samplers know of a method."""

    @abstractmethod
    def check(self, model: ModelConfig) -> None:
        """ValueError where the denoiser lacks something that the objective requires."""

    @abstractmethod
    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """The training corruption: a function of the batch, its stream positions and the state."""

    @abstractmethod
    def token_losses(self, prediction: AnyPrediction, noisy: Noisy) -> Tensor:
        """The weighted loss of each predicted token, ``[M]`` float32."""

    @property
    def drafts(self) -> bool:
        """Whether a pass without gradient comes before the one with it."""
        return False

    def draft_query(self, noisy: Noisy) -> Query:
        """What that first pass is asked."""
        raise NotImplementedError

    def with_draft(self, noisy: Noisy, draft: AnyPrediction) -> Noisy:
        """The corrupted batch with the answer in it."""
        raise NotImplementedError

    def begin(self) -> State:
        """The state before the first step."""
        return NO_STATE

    def learn(self, state: State, losses_N: Tensor, position_N: Tensor, draws: Draws) -> State:
        """The state after a step, from the global batch's sample losses in stream order."""
        return state

    def counted(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Tensor:
        """See :class:`Bounded`: by default how a padded text ends is given."""
        counted_BL = free_BL & (batch["tokens"] != model.mask)
        return counted_BL & ~batch["ending"] if "ending" in batch else counted_BL

    def scope(self, *, padded: bool) -> Scope:
        """See :class:`Bounded`."""
        told = "visible, neither predicted nor counted" if padded else "none"
        return Scope(length_given=padded, padding=told)


@runtime_checkable
class Bounded(Protocol):
    """An objective with a bound on the likelihood."""

    def bound_corrupt(
        self, batch: Batch, free_BL: Tensor, draws: Draws, model: ModelConfig
    ) -> Noisy:
        """A corruption whose loss is an unbiased estimate of -log p's bound in nats.

        ``free_BL`` (bool) marks the tokens that are :meth:`counted`; the others are given,
        but for ``batch["ending"]``, of which the :meth:`scope` tells.
        """

    def counted(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Tensor:
        """Which of the text's tokens ``[B, L]`` (bool) the nats are divided by: none is given."""

    def scope(self, *, padded: bool) -> Scope:
        """What the bound is of, for texts that stand alone and are padded, or for a stream."""

    def token_losses(self, prediction: AnyPrediction, noisy: Noisy) -> Tensor:
        """See :meth:`Objective.token_losses`."""


def sum_losses(losses_M: Tensor, noisy: Noisy) -> LossSums:
    """Sums of token losses, whole, by range of the level and by sample."""
    row_M, column_M = noisy.where_BL.nonzero(as_tuple=True)
    bucket_BL = (noisy.level_BK * LEVEL_BUCKETS).long().clamp(0, LEVEL_BUCKETS - 1)
    bucket_BL = bucket_BL.expand(noisy.ids_BL.shape)
    weight_M = noisy.weight_BK.expand(noisy.ids_BL.shape)[row_M, column_M]
    plain_M = losses_M.detach() / weight_M
    counted = bucket_BL.flatten() if noisy.valid_BL is None else bucket_BL[noisy.valid_BL]
    zeros = torch.zeros(LEVEL_BUCKETS, device=losses_M.device)
    samples = torch.zeros(len(noisy.ids_BL), device=losses_M.device)
    num_B = noisy.where_BL.sum(dim=1).clamp(min=1)
    return LossSums(
        loss=losses_M.sum(),
        level_loss=zeros.index_add(0, bucket_BL[row_M, column_M], losses_M.detach()),
        level_count=zeros.index_add(0, counted, torch.ones_like(counted, dtype=torch.float32)),
        sample_loss=samples.index_add(0, row_M, plain_M) / num_B,
    )
