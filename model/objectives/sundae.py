"""SUNDAE: a step-unrolled denoising autoencoder (Savinov et al. 2021, section 2).

Each token of a text x is replaced with probability r by an id drawn uniformly from the vocabulary,
with one rate r ~ U[0, 1] per text. The network f, without r as input, predicts the text at every
position, from the corrupted ids x_1 and from ids x_2, x_3 .. that it has generated itself, each a
sample x_{k+1} ~ f(x_k) through which no gradient passes:

    L = (1 / K) sum over k = 1 .. K of -log f(x | x_k)

so that it learns to correct its own mistakes. This is not a bound on the likelihood. A replacement
may equal the original token: (1 - 1/V) / 2 of all tokens change on average.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.draws import Draws
from model.needs import Need
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, State, stacked
from model.prediction import Ask, Prediction
from model.processes import uniform
from model.samplers import check_temperature


@dataclass(frozen=True, kw_only=True)
class Sundae(Objective):
    """The objective of SUNDAE.

    Args:
        unrolls: K, the number of views of a text in the loss: the corrupted one, and K - 1 that
            the network samples itself. The paper has 2; 1 is a plain denoising autoencoder.
        temperature: sampling temperature of these views; 0 takes the likeliest id.
    """

    summary: ClassVar[str] = (
        "A bidirectional denoiser that writes text by revising random ids again and again "
        "(SUNDAE, Savinov et al. 2021), trained on its own revisions too."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {"model": {"time_conditioning": False}}
    noise = "random"
    sampler = "unrolled"

    unrolls: int = 2
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.unrolls < 1:
            raise ValueError(f"unrolls must be at least 1, not {self.unrolls}")
        check_temperature(self.temperature)

    @property
    def needs(self) -> frozenset[Need]:
        """Ids, and no noise level as input: samplers do not know how many ids are wrong."""
        return frozenset({Need.IDS, Need.NO_LEVEL})

    @property
    def expansion(self) -> int:
        """K: one pass with gradient over all views."""
        return self.unrolls

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Replace each token with probability r, one stratified r per sample."""
        tokens, position = batch["tokens"], batch["position"]
        rate_B1 = draws.times(position)
        uniform_BL = draws.uniform("replace", position, tokens.shape[1])
        # A [MASK] in the text itself can be neither drawn nor predicted.
        text_BL = batch["valid"] & (tokens != model.mask)
        noisy_BL = uniform.corrupt(tokens, 1 - rate_B1, uniform_BL, model)
        return Noisy(
            ids_BL=torch.where(text_BL, noisy_BL, tokens),
            level_BK=rate_B1.float(),
            predict_mask_BL=text_BL,
            valid_BL=batch["valid"],
            layout=self.layout(tokens.shape[1]),
            segment_BL=batch.get("segment"),
            position_B=position,
            target_BL=tokens,
            weight_BK=torch.ones_like(rate_B1, dtype=torch.float32),
            over_BL=text_BL,
        )

    @property
    def refines(self) -> bool:
        """True if there are views to sample (K > 1)."""
        return self.unrolls > 1

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        """Unroll: stack the corrupted batch and the K - 1 views sampled from the network."""
        views = [noisy]
        for number in range(1, self.unrolls):
            last = views[-1]
            drawn_M = ask(last, partial(self._drawn, last, draws, number))
            ids_BL = last.ids_BL.masked_scatter(last.predict_mask_BL, drawn_M)
            views.append(replace(last, ids_BL=ids_BL))
        return stacked(views) if self.refines else noisy

    def _drawn(self, noisy: Noisy, draws: Draws, number: int, prediction: Prediction) -> Tensor:
        """Sample an id for every position of the text, ``[M]``."""
        assert prediction.logits is not None
        row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
        position_M = noisy.position_B[row_M]
        uniform_M = draws.uniform_at(f"unroll/{number}", position_M, column_M)
        return prediction.logits.pick(uniform_M, self.temperature)

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """-log p of the clean token at each position of each view, ``[M]`` float32."""
        assert prediction.logits is not None
        return {LOSS: -prediction.logits.log_prob(noisy.target_BL[noisy.predict_mask_BL])}
