"""A throw-away method: masked tokens become those that a teacher holds to be the likeliest.

Tests lay this folder beside the methods of :mod:`model.objectives`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, State
from model.objectives.mdlm import Mdlm
from model.prediction import Ask, Prediction
from model.schedules.loglinear import LogLinear

MASKED = Mdlm()


@dataclass(frozen=True, kw_only=True)
class Distilled(Objective):
    """-p_teacher(y) log p(y) of the teacher's likeliest y, where the text is masked."""

    summary: ClassVar[str] = "A student of another network."
    noise = "mask"
    sampler = "ancestral"
    schedule = LogLinear()

    teacher: str

    @property
    def networks(self) -> Mapping[str, str]:
        """One."""
        return {"teacher": self.teacher}

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """As MDLM does."""
        return MASKED.corrupt(batch, draws, model)

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        """Targets and weights from the teacher."""

        def likeliest(found: Prediction) -> tuple[Tensor, Tensor]:
            assert found.logits is not None
            return found.logits.best()

        ids_M, log_p_M = ask(noisy, likeliest, network="teacher")
        target_BL = noisy.target_BL.masked_scatter(noisy.predict_mask_BL, ids_M)
        zeros_BL = torch.zeros(target_BL.shape, device=target_BL.device)
        weight_BL = zeros_BL.masked_scatter(noisy.predict_mask_BL, log_p_M.float().exp())
        return replace(noisy, target_BL=target_BL, weight_BK=weight_BL)

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """Of each masked position."""
        return {LOSS: MASKED.bound_losses(prediction, noisy)}
