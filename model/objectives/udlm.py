"""UDLM: diffusion with uniform noise in continuous time (Schiff et al. 2024, section 4).

A noisy token is another token, so that sampled tokens can still change. The NELBO
(eq. 18) has a term at every position, unchanged ones too; over alpha, from 0 to 1, it is

    integral of E over x_t of the sum of (KL(q || p) + r - 1 - log r) / (alpha V q_i)

(:func:`model.processes.uniform.bound_density`): at alpha = 0 the noisy text is independent of
the clean one, at alpha = 1 it equals the clean one, so that there is neither a prior nor a
reconstruction term. Training excludes both ends: by the schedule's alpha(1), and by ``t_min``.

If x_theta at a position is p(x_0 there | the *other* positions of x_t), the reverse rates
are the true ones, and the bound is -log p(x) for every x. The posterior mean given the noisy token
as well is not the optimum of this bound: the process itself accounts for that token.

The integrand goes to 0 with alpha. Towards alpha = 1 it grows as -log(1 - alpha), which is
integrable, but comes from rare changed tokens of weight 1 / (1 - alpha): see
:meth:`Udlm.bound_corrupt`.

Padding is never noised: it is visible, and reveals the length of a text. For padded texts the
bound is on -log p(text | its length); the EOS, which follows from the length, is given as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from configs.load import Plugin
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, State, check_t_min
from model.prediction import Prediction
from model.processes import uniform
from model.schedules import Schedule
from model.schedules.loglinear import LogLinear


@dataclass(frozen=True, kw_only=True)
class Udlm(Objective):
    """The objective of UDLM.

    Args:
        schedule: alpha(t); the bound does not depend on it, the variance does.
        t_min: the least time drawn in training, since changed tokens have unbounded weight as t
            goes to 0.
    """

    summary: ClassVar[str] = (
        "A bidirectional denoiser that writes text by replacing random tokens, each as often as "
        "it takes (uniform-noise diffusion, Schiff et al. 2024)."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {"model": {"time_conditioning": True}}
    noise = "uniform"
    sampler = "uniform_ancestral"

    schedule: Annotated[Any, Plugin("model.schedules")] = LogLinear()
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        check_t_min(self.t_min)

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Replace each token with probability 1 - alpha(t), one stratified t per sample."""
        # A [MASK] in the text itself is never predicted.
        noised_BL = batch["valid"] & (batch["tokens"] != model.mask)
        t_B1 = self.t_min + (1 - self.t_min) * draws.times(batch["position"])
        level_B1 = t_B1.float()
        weight_B1 = -self.schedule.dalpha(level_B1.double())
        return self._noisy(
            batch, noised_BL, batch["valid"], draws, model, self.schedule, level_B1, weight_B1
        )

    def bound_corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Replace free tokens with probability v^2, v uniform and stratified, with weight 2 v.

        The NELBO is an integral over the noised share m = 1 - alpha from 0 to 1, and dm = 2 v dv.
        With m uniform, as in training, the variance would be infinite: the second moment of
        a changed token's loss, log(1/m) / m with probability m, is not integrable. With v it is.
        """
        counted_BL = self.counted(batch, model)
        root_B1 = draws.times(batch["position"])
        schedule = self.schedule.exact()
        level_B1 = schedule.time(1 - root_B1.square()).float()
        return self._noisy(
            batch, counted_BL, counted_BL, draws, model, schedule, level_B1, 2 * root_B1
        )

    @staticmethod
    def _noisy(
        batch: Batch,
        noised_BL: Tensor,
        over_BL: Tensor,
        draws: Draws,
        model: ModelConfig,
        schedule: Schedule,
        level_B1: Tensor,
        weight_B1: Tensor,
    ) -> Noisy:
        """Corrupt the batch at a noise level, from which the loss recomputes alpha."""
        tokens, position = batch["tokens"], batch["position"]
        uniform_BL = draws.uniform("noise", position, tokens.shape[1])
        alpha_B1 = schedule.alpha(level_B1.double())
        corrupted_BL = uniform.corrupt(tokens, alpha_B1, uniform_BL, model)
        return Noisy(
            ids_BL=torch.where(noised_BL, corrupted_BL, tokens),
            level_BK=level_B1,
            predict_mask_BL=noised_BL,
            valid_BL=batch["valid"],
            segment_BL=batch.get("segment"),
            position_B=position,
            target_BL=tokens,
            weight_BK=weight_B1.float(),
            over_BL=over_BL,
        )

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """The integrand of the NELBO at the noise level of each sample, ``[M]`` float32."""
        return {LOSS: self._losses(prediction, noisy, self.schedule)}

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """The integrand under the exact schedule, which covers all levels; ``[M]`` float32."""
        return self._losses(prediction, noisy, self.schedule.exact())

    @staticmethod
    def _losses(prediction: Prediction, noisy: Noisy, schedule: Schedule) -> Tensor:
        assert prediction.logits is not None
        row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
        alpha_M = schedule.alpha(noisy.level_BK.double())[row_M, 0]
        density_M = uniform.bound_density(
            prediction.logits,
            noisy.target_BL[row_M, column_M],
            noisy.ids_BL[row_M, column_M],
            alpha_M,
        )
        return noisy.weight_BK[row_M, 0] * density_M
