"""Block diffusion sampling: left to right over blocks, masked diffusion within each.

Arriola et al. 2025 (BD3-LM), algorithm 2: a block starts as [MASK]s and is filled in by ancestral
steps, given the finished blocks before it. A finished block is run once more, clean as in training,
to put its keys and values into the key/value cache for all later blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.naming import method_name
from model.networks.attention_layouts import Blocks, Cached
from model.networks.config import ModelConfig
from model.prediction import Prediction
from model.query import Query
from model.samplers import Job, check_steps
from model.samplers._masked import MaskedSampler, Step, reveal_evenly, reveal_one_by_one


@dataclass(frozen=True, kw_only=True)
class Blockwise(MaskedSampler):
    """Generate blocks from left to right; within a block, unmask tokens at random positions.

    Given text must come before the generated text, or be in the same block. The only exception
    is the last position: the EOS that ends a window of a stream.

    Args:
        steps: steps per block, evenly spaced in time; by default one per masked token, each at
            the time at which the next token is revealed (first-hitting sampler, Zheng et al.
            2024).
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
        cache: keep a key/value cache of finished blocks; without it every step recomputes them.
            The ids are the same.
    """

    lays_out = True

    steps: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None:
            check_steps(self.steps)

    def num_steps(self, length: int) -> int:
        """Upper bound: one per position, or ``steps`` per block (blocks of one position)."""
        return length * (self.steps or 1)

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """See :meth:`Sampler.suits`; the objective needs a ``block_size``."""
        super().suits(objective, model)
        if not hasattr(objective, "block_size"):
            method = method_name(objective)
            raise ValueError(
                f"sampler {self.name} undoes noise by blocks, and objective {method} has none: "
                f"its own sampler is {objective.sampler}"
            )

    def check_free(self, free_BL: Tensor, objective: Any) -> None:
        """Raise ValueError if a block is followed by given text though it has free positions."""
        size, length = objective.block_size, free_BL.shape[1]
        num = -(-length // size)
        free_BN = F.pad(free_BL, (0, num * size - length)).unflatten(1, (num, size)).any(-1)
        after_BN = free_BN.cumsum(dim=1) - free_BN.long() > 0
        unseen_BL = after_BN.repeat_interleave(size, dim=1)[:, :length] & ~free_BL
        if bool(unseen_BL[:, :-1].any()):
            raise ValueError(
                f"a model that writes in blocks of {size} tokens from left to right sees nothing "
                "of the text in later blocks: write the prompt before the text, with one blank at "
                "its end"
            )

    def run(self, job: Job) -> Tensor:
        """Generate the ids, up to the last block with free positions; see :meth:`check_free`."""
        size, length = job.objective.block_size, job.ids_BL.shape[1]
        self.check_free(job.free_BL, job.objective)
        ids_BL = self.start(job)
        written = job.free_BL.any(dim=0).nonzero()[:, 0].tolist()
        last = written[-1] if written else -1
        for start in range(0, last + 1, size):
            block = slice(start, min(start + size, length))
            ids_BL = self._write(job, ids_BL, block)
            if self.cache and block.stop <= last:
                self._keep(job, ids_BL, block)
        return ids_BL

    def _write(self, job: Job, ids_BL: Tensor, block: slice) -> Tensor:
        """Generate one block: return the ids with all of its masks filled in."""
        for number, (reveal_BL, level_B1) in enumerate(self._plan(job, block)):
            if bool(reveal_BL.any()):
                query = self._query(job, ids_BL, block, reveal_BL[:, block], level_B1)
                drawn = partial(self.draw, job, reveal_BL, f"token/{number}")
                ids_BL = ids_BL.masked_scatter(reveal_BL, job.ask(query, drawn))
            job.on_step(ids_BL)
        return ids_BL

    def _plan(self, job: Job, block: slice) -> Iterator[Step]:
        """The steps of a block; the positions revealed do not depend on the predictions."""
        hidden_BL = torch.zeros_like(job.free_BL)
        hidden_BL[:, block] = job.free_BL[:, block]
        if self.steps is None:
            return reveal_one_by_one(job, hidden_BL)
        return reveal_evenly(job, hidden_BL, self.steps)

    def _query(
        self, job: Job, ids_BL: Tensor, block: slice, where_Bb: Tensor, level_B1: Tensor
    ) -> Query:
        """Query for some positions of a block: with the key/value cache, or as in training."""
        if self.cache:
            return Query(
                ids_BL=ids_BL[:, block],
                level_BK=level_B1,
                predict_mask_BL=where_Bb,
                layout=Cached(past=block.start, keep=False),
            )
        before, whole_BL = (block.start, block.stop), ids_BL[:, : block.stop]
        return Query(
            ids_BL=torch.cat([whole_BL, whole_BL], dim=1),
            level_BK=F.pad(level_B1.expand(where_Bb.shape), before),
            predict_mask_BL=F.pad(where_Bb, before),
            layout=Blocks(size=job.objective.block_size),
        )

    def _keep(self, job: Job, ids_BL: Tensor, block: slice) -> None:
        """Run a finished block to add its keys and values to the cache."""
        ids_Bb = ids_BL[:, block]
        query = Query(
            ids_BL=ids_Bb,
            level_BK=torch.zeros(len(ids_Bb), 1, device=ids_Bb.device),
            predict_mask_BL=torch.zeros_like(ids_Bb, dtype=torch.bool),
            layout=Cached(past=block.start),
        )
        job.ask(query, _nothing)


def _nothing(prediction: Prediction) -> Tensor:
    """Ignore the prediction: the pass is run only to fill the cache."""
    assert prediction.logits is not None
    return prediction.logits.logits_MR.new_zeros(1)
