"""MDLM: masked diffusion with the SUBS parameterisation (Sahoo et al. 2024, section 3).

The prediction never contains [MASK] (zero masking probability) and visible tokens carry
over, so that the continuous-time NELBO is a weighted masked-language-model loss (eq. 10):

    E_t  -alpha'(t) / (1 - alpha(t))  *  sum over masked positions of -log p(x_0 | x_t)

Padding that stays visible reveals where a text ends: the bound is then on -log p(text | its
length), and the EOS is given too. The authors' code masks padding like text and only leaves it
out of the loss, which bounds the same quantity, less tightly: the L positions are revealed in any
order, and those that follow from the length cost nothing. Only if padding is predicted as well
does the bound include the length. See :class:`Scope`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, Scope, State, check_t_min
from model.prediction import Prediction
from model.processes.absorbing import bound_weight, corrupt, log_uniform, step_weight
from model.processes.masked_bound import ESTIMATORS, Estimator, bound_mask, bound_times
from model.schedules.loglinear import LogLinear

try:  # noqa: SIM105 - marks the import as optional for exported files
    from configs.build import Plugin
except ImportError:  # in exported files, which have no configuration
    pass


@dataclass(frozen=True, kw_only=True)
class Mdlm(Objective):
    """The objective of MDLM.

    Args:
        schedule: alpha(t); the bound does not depend on it, the variance does.
        t_min: the least time drawn in training, since the weight is unbounded as t goes to 0.
        times: ``uniform`` in [t_min, 1], or ``importance``: in proportion to the weight of the
            loss, which is then the same for every masked token; its expectation is unchanged.
        num_steps: T, train on the discrete-time bound with times 1/T, 2/T ... 1, as D3PM; by
            default time is continuous. Held out it is always the continuous-time bound.
        padding: treatment of padding (``data.packing: pad``). ``masked``, as in the authors'
            code: masked like text, and left out of the loss. ``generated``: treated as text,
            in the loss too, so that the model learns where texts end and its bound includes
            the length. ``visible``: never masked, so that the length is given.
        estimator: of the held-out bound, all of one mean: ``exact-k`` draws how many tokens are
            masked first, stratified; ``stratified-time`` the time first, as in the authors' code,
            whose variance is infinite; ``fixed-l`` the number, not stratified (LLaDA, eq. 14).
    """

    summary: ClassVar[str] = (
        "A bidirectional denoiser that writes text by filling in [MASK]s (masked diffusion, "
        "Sahoo et al. 2024), several positions at a time and in any order."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    noise = "mask"
    sampler = "ancestral"
    estimators: ClassVar[tuple[str, ...]] = ESTIMATORS

    schedule: Annotated[Any, Plugin("model.schedules")] = LogLinear()
    t_min: float = 1e-3
    times: Literal["uniform", "importance"] = "uniform"
    num_steps: int | None = None
    padding: Literal["masked", "generated", "visible"] = "masked"
    estimator: Estimator = "exact-k"

    def __post_init__(self) -> None:
        check_t_min(self.t_min)
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, not {self.num_steps}")
        if self.times == "importance" and (self.num_steps is not None or self.t_min == 0.0):
            raise ValueError(
                "times must be uniform with num_steps, and where t_min is 0: there the weight has "
                "no finite integral"
            )

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Mask each token with probability 1 - alpha(t), one stratified t per sample."""
        tokens, valid, position = batch["tokens"], batch["valid"], batch["position"]
        text_BL = torch.ones_like(valid) if self.padding == "generated" else valid
        t_BK, weight_BK = self._times(draws, position, tokens.shape[1])
        alpha_BK = self.schedule.alpha(t_BK)
        uniform_BL = draws.uniform("mask", position, tokens.shape[1])
        corrupted_BL = corrupt(tokens, alpha_BK, uniform_BL, model.mask)
        # A [MASK] in the text itself can be neither corrupted nor predicted.
        masked_BL = (corrupted_BL == model.mask) & (tokens != model.mask)
        if self.padding == "visible":
            masked_BL = masked_BL & valid
        return Noisy(
            ids_BL=torch.where(masked_BL, model.mask, tokens),
            level_BK=t_BK.float(),
            predict_mask_BL=masked_BL & text_BL,
            valid_BL=text_BL,
            segment_BL=batch.get("segment"),
            position_B=position,
            target_BL=tokens,
            weight_BK=weight_BK.float(),
            over_BL=text_BL,
        )

    def _times(self, draws: Draws, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Times t and the weight of a masked token, ``[B, 1]`` each, or per position ``[B, L]``."""
        return self._at_times(draws.times(position_B), t_max=1.0)

    def _at_times(self, uniform_BK: Tensor, t_max: float) -> tuple[Tensor, Tensor]:
        """Times between t_min and t_max, and weights, ``[B, K]`` each, by uniforms in (0, 1)."""
        alpha = self.schedule.alpha
        if self.num_steps is not None:
            t_BK = ((uniform_BK * self.num_steps).floor() + 1).clamp(max=self.num_steps)
            t_BK, s_BK = t_BK / self.num_steps, (t_BK - 1) / self.num_steps
            return t_BK, self.num_steps * step_weight(alpha(s_BK), alpha(t_BK))
        t_BK = self.t_min + (t_max - self.t_min) * uniform_BK
        if self.times == "uniform":
            return t_BK, bound_weight(alpha(t_BK), self.schedule.dalpha(t_BK))
        least, most = (1 - alpha(uniform_BK.new_tensor(t)) for t in (self.t_min, t_max))
        masked_BK, weight_BK = log_uniform(uniform_BK, least, most)
        # Uniform times average over [t_min, t_max], of which this is the integral.
        return self.schedule.time(1 - masked_BK), weight_BK / (t_max - self.t_min)

    @property
    def head_share(self) -> float:
        """Half: the average share of masked positions over all times."""
        return 0.5

    def scope(self, *, padded: bool) -> Scope:
        """What the held-out bound is on, for single padded texts (``padded``) or a stream."""
        if not padded or self.padding == "visible":
            return super().scope(padded=padded)
        told = {
            "masked": "masked as text is, neither predicted nor counted",
            "generated": "predicted, its nats counted as the text's, its positions not",
        }
        given = self.padding == "masked"
        return Scope(length_given=given, padding=told[self.padding], end_masked=True)

    def counted(self, batch: Batch, model: ModelConfig) -> Tensor:
        """The tokens ``[B, L]`` (bool) that the bound is divided by; see :class:`Bounded`."""
        if self.padding == "generated":
            return batch["free"] & (batch["tokens"] != model.mask)
        return super().counted(batch, model)

    def bound_corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Mask some of the hidden tokens by an estimator of :mod:`model.processes.masked_bound`.

        Hidden are the free tokens and, unless padding stays visible, the end of each text.
        """
        tokens, position = batch["tokens"], batch["position"]
        counted_BL = self.counted(batch, model)
        hidden_BL = predicted_BL = counted_BL
        if self.padding != "visible" and "ending" in batch:
            hidden_BL = (batch["free"] | batch["ending"]) & (tokens != model.mask)
        if self.padding == "generated":
            predicted_BL = hidden_BL
        masked_BL, t_BK, weight_BK = self._some_of(hidden_BL, draws, position)
        return Noisy(
            ids_BL=torch.where(masked_BL, model.mask, tokens),
            level_BK=self.schedule.exact().time(1 - t_BK).float(),
            predict_mask_BL=masked_BL & predicted_BL,
            valid_BL=torch.ones_like(hidden_BL) if self.padding == "generated" else batch["valid"],
            segment_BL=batch.get("segment"),
            position_B=position,
            target_BL=tokens,
            weight_BK=weight_BK.float(),
            over_BL=counted_BL,
        )

    def _some_of(
        self, hidden_BL: Tensor, draws: Draws, position_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the hidden tokens to mask ``[B, L]``, with their rate and weight ``[B, K]``."""
        uniform_BL = draws.uniform("mask", position_B, hidden_BL.shape[1])
        time_B1 = bound_times(self.estimator, draws, position_B)
        return bound_mask(self.estimator, hidden_BL, time_B1, uniform_BL)

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """The integrand of the NELBO at the noise level of each sample, ``[M]`` float32."""
        return {LOSS: self.bound_losses(prediction, noisy)}

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """-weight log p(x_0) of each masked token, ``[M]`` float32."""
        assert prediction.logits is not None
        row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
        weight_M = noisy.weight_BK.expand(noisy.ids_BL.shape)[row_M, column_M]
        return -weight_M * prediction.logits.log_prob(noisy.target_BL[row_M, column_M])
