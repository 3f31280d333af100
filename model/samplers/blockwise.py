"""Block diffusion sampling: left to right over blocks, masked diffusion within each.

Arriola et al. 2025 (BD3-LM), algorithm 2: a block starts as [MASK]s and is filled in by ancestral
steps, given the finished blocks before it. A finished block is run once more, clean as in training,
to put its keys and values into the key/value cache for all later blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.naming import method_name
from model.networks.attention_layouts import Blocks, Cached
from model.networks.config import ModelConfig
from model.prediction import Prediction
from model.processes.absorbing import stay_masked
from model.query import Query
from model.samplers import Job, Sampler, check_steps, check_temperature, check_top_p

Step = tuple[Tensor, Tensor]
"""Positions of a block to reveal, bool ``[B, b]``, and the noise level of the query."""


@dataclass(frozen=True, kw_only=True)
class Blockwise(Sampler):
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

    undoes = ("mask",)
    lays_out = True

    steps: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    cache: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)
        check_temperature(self.temperature)
        check_top_p(self.top_p)

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
        ids_BL = torch.where(job.free_BL, job.model.mask, job.ids_BL)
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
        for number, (reveal_Bb, level_B1) in enumerate(self._plan(job, block)):
            if bool(reveal_Bb.any()):
                query = self._query(job, ids_BL, block, reveal_Bb, level_B1)
                reveal_BL = torch.zeros_like(job.free_BL)
                reveal_BL[:, block] = reveal_Bb
                drawn_M = job.ask(query, partial(self._drawn, job, reveal_BL, number))
                ids_BL = ids_BL.masked_scatter(reveal_BL, drawn_M)
            job.on_step(ids_BL)
        return ids_BL

    def _plan(self, job: Job, block: slice) -> Iterator[Step]:
        """The steps of a block; the positions revealed do not depend on the predictions."""
        hidden_Bb, schedule = job.free_BL[:, block], job.objective.schedule.exact()
        length = job.free_BL.shape[1]
        if self.steps is None:
            # Mask rates are i.i.d. uniform; the next token is revealed at the largest remaining.
            rate_Bb = job.draws.uniform("reveal", job.position_B, length)[:, block]
            rate_Bb = rate_Bb.masked_fill(~hidden_Bb, -1.0)
            for column_B1 in rate_Bb.argsort(dim=1, descending=True).split(1, dim=1):
                reveal_Bb = hidden_Bb & torch.zeros_like(hidden_Bb).scatter(1, column_B1, True)
                level_B1 = schedule.time(1 - rate_Bb.gather(1, column_B1).clamp(min=0.0))
                yield reveal_Bb, level_B1.float()
            return
        levels = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64, device=hidden_Bb.device)
        for number, (t, s) in enumerate(pairwise(levels)):
            stay = stay_masked(schedule.alpha(s), schedule.alpha(t))
            uniform_BL = job.draws.uniform(f"reveal/{number}", job.position_B, length)
            reveal_Bb = hidden_Bb & (uniform_BL[:, block] >= stay)
            hidden_Bb = hidden_Bb & ~reveal_Bb
            yield reveal_Bb, t.float().expand(len(hidden_Bb), 1)

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

    def _drawn(self, job: Job, reveal_BL: Tensor, number: int, prediction: Prediction) -> Tensor:
        """Sample a token for each revealed position, ``[M]``."""
        logits = prediction.logits
        assert logits is not None
        if self.top_p < 1.0:
            logits = logits.top_p(self.top_p)
        row_M, column_M = reveal_BL.nonzero(as_tuple=True)
        position_M = job.position_B[row_M]
        return logits.sample(job.draws, f"token/{number}", position_M, column_M, self.temperature)


def _nothing(prediction: Prediction) -> Tensor:
    """Ignore the prediction: the pass is run only to fill the cache."""
    assert prediction.logits is not None
    return prediction.logits.logits_MR.new_zeros(1)
