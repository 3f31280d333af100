"""Unmasking by confidence (Chang et al. 2022, MaskGIT; Nie et al. 2025, LLaDA, algorithm 5).

In every step all masked tokens of a block are predicted, and those of which the network is most
confident are kept; the others are masked again. Texts that are complete, or in which a step keeps
nothing, are not evaluated. By ``probability`` likely tokens are favoured: the
samples have not the distribution of the model. The other criteria do not depend on the token
drawn, and change no distribution as long as a step keeps one token.

Blocks are written from left to right; a block is a number of free positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from model.categorical import Categorical
from model.prediction import Prediction
from model.samplers import Job, check_guidance, check_steps
from model.samplers._masked import MaskedSampler, ask_texts


@dataclass(frozen=True, kw_only=True)
class Confidence(MaskedSampler):
    """Unmask the tokens of which the network is most confident, in blocks from left to right.

    Args:
        steps: number of network evaluations per block; the tokens of a block are spread evenly
            over them, the remainder over the first ones.
        block_length: number of tokens generated per block; by default the whole text.
        criterion: confidence in a token: its probability (``probability``), minus the entropy of
            the prediction (``entropy``), the lead of its likeliest id over the second
            (``margin``), or none, which unmasks in random order (``random``).
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
        guidance: w of classifier-free guidance on the given text (LLaDA): tokens and confidence
            are those of p(x | given)^(1 + w) / p(x)^w, at twice the evaluations; 0 for none.
    """

    steps: int = 64
    block_length: int | None = None
    criterion: Literal["probability", "entropy", "margin", "random"] = "probability"
    temperature: float = 1.0
    top_p: float = 1.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        check_guidance(self.guidance)
        if self.block_length is not None and self.block_length < 1:
            raise ValueError(f"block_length must be at least 1, not {self.block_length}")

    def num_steps(self, length: int) -> int:
        """Upper bound: ``steps`` per block, or one per token of it."""
        size = min(self.block_length or length, length)
        return -(-length // size) * min(self.steps, size)

    def run(self, job: Job) -> Tensor:
        """Generate the ids; after the last step no free position is masked."""
        ids_BL, mask = self.start(job), job.model.mask
        query, schedule = job.query(ids_BL, 1.0), job.objective.schedule.exact()
        num_free_B1 = job.free_BL.sum(dim=1, keepdim=True).clamp(min=1)
        for block_BL, number, count_B1 in self._plan(job):
            hidden_BL = job.free_BL & (ids_BL == mask)
            share_B1 = hidden_BL.sum(dim=1, keepdim=True).double() / num_free_B1
            asked_BL = hidden_BL & block_BL & (count_B1 > 0)
            query = replace(
                query,
                ids_BL=ids_BL,
                level_BK=schedule.time(1 - share_B1).float(),
                predict_mask_BL=asked_BL,
            )
            read = partial(self._drawn, job, asked_BL, number)
            drawn_M, sure_M = ask_texts(job, query, read, self.guidance)
            kept_BL = self._surest(asked_BL, sure_M, count_B1)
            ids_BL = torch.where(kept_BL, ids_BL.masked_scatter(asked_BL, drawn_M), ids_BL)
            job.on_step(ids_BL)
        return ids_BL

    def _plan(self, job: Job) -> Iterator[tuple[Tensor, str, Tensor]]:
        """The positions of a block ``[B, L]``, the step's name, and how many to keep ``[B, 1]``."""
        length = job.free_BL.shape[1]
        rank_BL = job.free_BL.cumsum(dim=1) - 1
        size = min(self.block_length or length, length)
        for block in range(-(-length // size)):
            block_BL = job.free_BL & (rank_BL // size == block)
            num_B1 = block_BL.sum(dim=1, keepdim=True)
            for step in range(min(self.steps, int(num_B1.max()))):
                count_B1 = num_B1 // self.steps + (step < num_B1 % self.steps).long()
                yield block_BL, f"{block}/{step}", count_B1

    def _drawn(
        self, job: Job, asked_BL: Tensor, number: str, prediction: Prediction
    ) -> tuple[Tensor, Tensor]:
        """A token for each position, and the confidence in it, ``[M]`` each."""
        ids_M = self.draw(job, asked_BL, f"token/{number}", prediction)
        logits = prediction.logits
        assert logits is not None
        if self.criterion == "random":
            order_BL = job.draws.uniform("order", job.position_B, asked_BL.shape[1])
            return ids_M, order_BL[asked_BL]
        return ids_M, self._sure(logits, ids_M)

    def _sure(self, logits: Categorical, ids_M: Tensor) -> Tensor:
        """Confidence by the criterion, ``[M]``: more is surer."""
        if self.criterion == "probability":
            return logits.log_prob(ids_M)
        if self.criterion == "entropy":
            return -logits.entropy()
        best_M, log_p_M = logits.best()
        is_best_MR = logits.one_hot(best_M).bool()
        others = Categorical(logits.logits_MR.masked_fill(is_best_MR, -torch.inf), logits.rows)
        second_M, _ = others.best()
        return log_p_M.exp() - logits.log_prob(second_M).exp()

    def _surest(self, asked_BL: Tensor, sure_M: Tensor, count_B1: Tensor) -> Tensor:
        """The so many positions of each text with the highest confidence, bool ``[B, L]``."""
        sure_BL = torch.full(asked_BL.shape, -torch.inf, dtype=torch.float64, device=sure_M.device)
        sure_BL = sure_BL.masked_scatter(asked_BL, sure_M.double())
        order_BL = sure_BL.argsort(dim=1, descending=True, stable=True)
        return asked_BL & (order_BL.argsort(dim=1) < count_B1)
