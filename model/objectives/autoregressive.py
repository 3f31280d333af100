"""The autoregressive baseline: each token from those before it, with an exact likelihood.

    -log p(x) = sum over j of -log p(x_j | x_1 ... x_{j-1})

It is the yardstick of the diffusion models here, as in their papers (Sahoo et al. 2024, section
5.1): the same blocks, data and tokens, attention causal. Column j reads the token before it and
predicts its own, so that all L tokens are predicted, the first one from [MASK], which no text
holds. Nothing is noised, and nothing drawn: any number of held-out samples gives one number.

Where documents that share a sample are told apart, what a column reads belongs to the document
that it predicts: the EOS of the document before is its start symbol, and all it sees of that one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.draws import Draws
from model.needs import Need
from model.networks.attention_layouts import AttentionLayout, Causal
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Batch, Noisy, Objective, Scope, State
from model.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Autoregressive(Objective):
    """The objective of next-token models."""

    summary: ClassVar[str] = (
        "A causal transformer that writes text from left to right, one token at a time: the "
        "autoregressive baseline of Sahoo et al. 2024."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {"model": {"time_conditioning": False}}
    noise = "none"
    sampler = "left_to_right"

    @property
    def needs(self) -> frozenset[Need]:
        """Causal attention of its own making, and predictions that no layer shifts as well."""
        return frozenset({Need.IDS, Need.OWN_LAYOUT, Need.OWN_POSITION})

    def layout(self, length: int) -> AttentionLayout:
        """No position sees a later one."""
        return Causal()

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """The text moved by one, and all of it predicted."""
        return self._asked(batch, batch["valid"], model)

    def scope(self, *, padded: bool) -> Scope:
        """-log p itself. EOS says where a text ends, and is predicted and counted."""
        told = "behind the EOS, neither seen nor predicted nor counted" if padded else "none"
        return Scope(length_given=False, padding=told, end_masked=padded, exact=True)

    def counted(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Tensor:
        """The tokens ``[B, L]`` (bool) that are scored, the EOS of padded texts among them."""
        return free_BL & (batch["tokens"] != model.mask)

    def bound_corrupt(
        self,
        batch: Batch,
        free_BL: Tensor,
        draws: Draws,
        model: ModelConfig,
        state: State = NO_STATE,
    ) -> Noisy:
        """The same: what is not free is read, and not predicted."""
        return self._asked(batch, free_BL, model)

    def _asked(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Noisy:
        tokens, valid, num = batch["tokens"], batch["valid"], len(batch["tokens"])
        predicted_BL = self.counted(batch, free_BL, model)
        return Noisy(
            ids_BL=torch.cat([tokens.new_full((num, 1), model.mask), tokens[:, :-1]], dim=1),
            level_BK=torch.zeros(num, 1, device=tokens.device),
            predict_mask_BL=predicted_BL,
            valid_BL=valid,
            layout=self.layout(tokens.shape[1]),
            segment_BL=batch.get("segment"),
            position_B=batch["position"],
            target_BL=tokens,
            weight_BK=torch.ones(num, 1, device=tokens.device),
            over_BL=predicted_BL,
            tokens=valid.sum(),
        )

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """The nats of each token."""
        return {LOSS: self.bound_losses(prediction, noisy)}

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """-log p(x_j | what stands before it), ``[M]`` float32."""
        assert prediction.logits is not None
        return -prediction.logits.log_prob(noisy.target_BL[noisy.predict_mask_BL])
