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
a source also ``source`` [B, S] int64 and ``source_valid`` [B, S] bool."""

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


@runtime_checkable
class Bounded(Protocol):
    """An objective with a bound on the likelihood."""

    def bound_corrupt(
        self, batch: Batch, free_BL: Tensor, draws: Draws, model: ModelConfig
    ) -> Noisy:
        """A corruption whose loss is an unbiased estimate of -log p's bound in nats.

        ``free_BL`` (bool) marks the tokens that are scored; the others are given.
        """

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
