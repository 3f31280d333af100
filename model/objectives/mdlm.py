"""MDLM: masked diffusion with the SUBS parameterisation (Sahoo et al. 2024, section 3).

The prediction never holds [MASK] (zero masking probability) and visible tokens carry
over, so that the continuous-time bound is a weighted masked-language-model loss (eq. 10):

    E_t  -alpha'(t) / (1 - alpha(t))  *  sum over masked positions of -log p(x_0 | x_t)
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from configs.load import Plugin
from model.config import ModelConfig
from model.draws import Draws
from model.objectives import NO_STATE, Batch, Noisy, Objective, State
from model.prediction import AnyPrediction, Prediction
from model.processes import absorbing
from model.schedules.loglinear import LogLinear


@dataclass(frozen=True, kw_only=True)
class Mdlm(Objective):
    """The objective of MDLM.

    Args:
        schedule: alpha(t); the bound does not depend on it, the variance does.
        t_min: the least time drawn in training, where the weight would grow without bound.
    """

    schedule: Annotated[Any, Plugin("model.schedules")] = LogLinear()
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 <= self.t_min < 1.0:
            raise ValueError(f"t_min must lie in [0, 1), not {self.t_min}")

    def check(self, model: ModelConfig) -> None:
        """MDLM runs with and without time conditioning; it predicts ids."""
        if model.seq2seq is not None:
            raise ValueError("objective mdlm predicts ids: leave model.seq2seq out, or use genie")

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Mask each valid token with probability 1 - alpha(t), one stratified t a sample."""
        tokens, valid, position = batch["tokens"], batch["valid"], batch["position"]
        t_B1 = self.t_min + (1 - self.t_min) * draws.times(position)
        alpha_B1 = self.schedule.alpha(t_B1)
        uniform_BL = draws.uniform("mask", position, tokens.shape[1])
        corrupted_BL = absorbing.corrupt(tokens, alpha_B1, uniform_BL, model.mask)
        # A [MASK] of the text itself can be neither corrupted nor predicted.
        where_BL = (corrupted_BL == model.mask) & (tokens != model.mask) & valid
        weight_B1 = absorbing.bound_weight(alpha_B1, self.schedule.dalpha(t_B1))
        return Noisy(
            ids_BL=torch.where(where_BL, model.mask, tokens),
            level_BK=t_B1.float(),
            where_BL=where_BL,
            valid_BL=batch["valid"],
            target_BL=tokens,
            weight_BK=weight_B1.float(),
            count=valid.sum(),
        )

    def bound_corrupt(
        self, batch: Batch, free_BL: Tensor, draws: Draws, model: ModelConfig
    ) -> Noisy:
        """Mask k of the n free tokens, k uniform on 1..n, and weigh them by n / k.

        The bound integrates (1/t) Binomial(k; n, t) over t in (0, 1]; that mass is
        (1/k) Beta(t; k, n-k+1). So k may be drawn first, evenly, and t after it as the
        k-th smallest of n uniforms, which also says which tokens are masked. The estimate
        is unbiased for t over the whole of (0, 1], while its variance stays finite: with t
        drawn first, weights 1/t make it infinite. k is stratified over ``draws.batch``.
        """
        tokens, position = batch["tokens"], batch["position"]
        free_BL = free_BL & (tokens != model.mask)
        num_B1 = free_BL.sum(dim=1, keepdim=True)
        masked_B1 = (draws.times(position) * num_B1).long() + 1
        masked_B1 = torch.minimum(masked_B1, num_B1)
        uniform_BL = draws.uniform("mask", position, tokens.shape[1])
        uniform_BL = uniform_BL.masked_fill(~free_BL, 2.0)
        sorted_BL = uniform_BL.sort(dim=1).values
        t_B1 = sorted_BL.gather(1, (masked_B1 - 1).clamp(min=0)).clamp(max=1.0)
        where_BL = (uniform_BL <= t_B1) & free_BL
        return Noisy(
            ids_BL=torch.where(where_BL, model.mask, tokens),
            level_BK=self.schedule.exact().time(1 - t_B1).float(),
            where_BL=where_BL,
            valid_BL=batch["valid"],
            target_BL=tokens,
            weight_BK=(num_B1 / masked_B1.clamp(min=1)).float(),
            count=num_B1.sum(),
        )

    def token_losses(self, prediction: AnyPrediction, noisy: Noisy) -> Tensor:
        """-weight log p(x_0) of each masked token, ``[M]`` float32."""
        assert isinstance(prediction, Prediction)
        row_M, column_M = noisy.where_BL.nonzero(as_tuple=True)
        weight_M = noisy.weight_BK.expand(noisy.ids_BL.shape)[row_M, column_M]
        return -weight_M * prediction.log_prob(noisy.target_BL[row_M, column_M])
