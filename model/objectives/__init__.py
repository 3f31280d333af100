"""Training objectives: one published system per file, each one frozen dataclass.

The dataclass is its own configuration: ``objective: {name: mdlm, ...}`` names the file
and sets its fields. An objective corrupts a batch and turns a prediction into a loss; it
sees no parameters, ranks, vocabulary shards or pipeline stages.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model.config import ModelConfig
from model.draws import Draws
from model.prediction import Prediction

LEVEL_BUCKETS = 10
"""Equal ranges of the level, over which losses are also reported apart."""

Batch = dict[str, Tensor]
"""``tokens`` [B, L] int64, ``valid`` [B, L] bool, ``position`` [B] int64 in the stream."""


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """A corrupted batch: what the denoiser reads and what the loss compares it with.

    Args:
        ids_BL: int64 input ids.
        level_BK: float32 noise level, 0 clean and 1 prior.
        where_BL: bool, the M positions that are predicted; the head runs only there.
        target_BL: int64, the clean ids.
        weight_BK: float32, of each predicted token in the loss.
        count: int64 scalar, the tokens over which the loss is averaged.
    """

    ids_BL: Tensor
    level_BK: Tensor
    where_BL: Tensor
    target_BL: Tensor
    weight_BK: Tensor
    count: Tensor


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """Sums and counts, never means: they are divided once, over the global batch.

    Args:
        loss: scalar with gradient, the sum over the micro-batch.
        level_loss, level_count: ``[LEVEL_BUCKETS]``, the same by range of the level,
            without gradient; a token counts in the bucket of its level.
    """

    loss: Tensor
    level_loss: Tensor
    level_count: Tensor


class Objective(Protocol):
    """What the trainer, the evaluator and the samplers know of a method."""

    def check(self, model: ModelConfig) -> None:
        """ValueError where the denoiser lacks something that the objective requires."""

    def corrupt(self, batch: Batch, draws: Draws, model: ModelConfig) -> Noisy:
        """The training corruption: a pure function of the batch and its stream positions."""

    def bound_corrupt(
        self, batch: Batch, free_BL: Tensor, draws: Draws, model: ModelConfig
    ) -> Noisy:
        """A corruption whose loss is an unbiased estimate of -log p's bound in nats.

        ``free_BL`` (bool) marks the tokens that are scored; the others are given.
        """

    def token_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """The weighted loss of each predicted token, ``[M]`` float32."""


def sum_losses(losses_M: Tensor, noisy: Noisy, valid_BL: Tensor) -> LossSums:
    """Sums of token losses, whole and by range of the level."""
    row_M, column_M = noisy.where_BL.nonzero(as_tuple=True)
    bucket_BL = (noisy.level_BK * LEVEL_BUCKETS).long().clamp(0, LEVEL_BUCKETS - 1)
    bucket_BL = bucket_BL.expand(noisy.ids_BL.shape)
    zeros = torch.zeros(LEVEL_BUCKETS, device=losses_M.device)
    return LossSums(
        loss=losses_M.sum(),
        level_loss=zeros.index_add(0, bucket_BL[row_M, column_M], losses_M.detach()),
        level_count=zeros.index_add(
            0, bucket_BL[valid_BL], torch.ones_like(valid_BL[valid_BL], dtype=torch.float32)
        ),
    )
