"""Unrolled sampling: revise random ids until nothing changes (Savinov et al. 2021, SUNDAE).

At each step the network predicts the complete text from the current one, and a share of the
positions takes the predicted ids. It was trained on such chains of its own samples; there is no
noise level.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from model.prediction import Prediction
from model.processes.uniform import random_ids
from model.samplers import Job, Sampler, check_steps, check_temperature


@dataclass(frozen=True, kw_only=True)
class Unrolled(Sampler):
    """Revise random ids, a share of them per step, until the text no longer changes.

    Args:
        steps: maximum number of network evaluations; the paper uses up to 1,000.
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        proportion: share of the free positions revised per step, at least one position.
        order: which positions are revised: drawn at random in each step (``random``), or, after a
            first step that revises all, those whose ids were least likely in the previous step
            (``unsure``; at temperature 0 this is argmax-unrolled decoding).
        min_steps: from this step on, a text is finished when a step changes none of its ids.
    """

    undoes = ("random",)

    steps: int = 100
    temperature: float = 0.8
    proportion: float = 0.3
    order: Literal["random", "unsure"] = "random"
    min_steps: int = 10

    def __post_init__(self) -> None:
        check_steps(self.steps)
        check_temperature(self.temperature)
        if not 0.0 < self.proportion <= 1.0:
            raise ValueError(f"proportion must lie in (0, 1], not {self.proportion}")
        if self.min_steps < 1:
            raise ValueError(f"min_steps must be at least 1, not {self.min_steps}")

    def num_steps(self, length: int) -> int:
        """Upper bound: sampling ends early once all texts are finished."""
        return self.steps

    def run(self, job: Job) -> Tensor:
        """Generate the ids, until the last step or until every text is finished."""
        uniform_BL = job.draws.uniform("start", job.position_B, job.ids_BL.shape[1])
        ids_BL = torch.where(job.free_BL, random_ids(uniform_BL, job.model), job.ids_BL)
        query = job.query(ids_BL, 0.0)
        open_BL, sure_BL = job.free_BL, None
        for number in range(self.steps):
            if not bool(open_BL.any()):
                break
            revised_BL = self._revised(job, open_BL, number, sure_BL)
            predict_mask_BL = revised_BL if self.order == "random" else open_BL
            query = replace(query, ids_BL=ids_BL, predict_mask_BL=predict_mask_BL)
            drawn_M, log_p_M = job.ask(query, partial(self._drawn, job, predict_mask_BL, number))
            before_BL = ids_BL
            drawn_BL = ids_BL.masked_scatter(predict_mask_BL, drawn_M)
            sure_BL = torch.zeros_like(uniform_BL).masked_scatter(predict_mask_BL, log_p_M.double())
            ids_BL = torch.where(revised_BL, drawn_BL, ids_BL)
            job.on_step(ids_BL)
            if number + 1 >= self.min_steps:
                open_BL = open_BL & (ids_BL != before_BL).any(dim=1, keepdim=True)
        return ids_BL

    def _revised(self, job: Job, open_BL: Tensor, number: int, sure_BL: Tensor | None) -> Tensor:
        """Choose the positions that a step revises, bool ``[B, L]``."""
        if self.order == "random":
            score_BL = job.draws.uniform(f"revise/{number}", job.position_B, open_BL.shape[1])
        elif sure_BL is None:
            return open_BL
        else:
            score_BL = sure_BL
        score_BL = score_BL.masked_fill(~open_BL, torch.inf)
        rank_BL = score_BL.argsort(dim=1, stable=True).argsort(dim=1)
        count_B1 = open_BL.sum(dim=1, keepdim=True).double() * self.proportion
        return open_BL & (rank_BL < count_B1.round().clamp(min=1))

    def _drawn(
        self, job: Job, predict_mask_BL: Tensor, number: int, prediction: Prediction
    ) -> tuple[Tensor, Tensor]:
        """Sample an id for each predicted position, with its log p, ``[M]`` each."""
        assert prediction.logits is not None
        row_M, column_M = predict_mask_BL.nonzero(as_tuple=True)
        position_M = job.position_B[row_M]
        uniform_M = job.draws.uniform_at(f"token/{number}", position_M, column_M)
        ids_M = prediction.logits.pick(uniform_M, self.temperature)
        return ids_M, prediction.logits.log_prob(ids_M)
