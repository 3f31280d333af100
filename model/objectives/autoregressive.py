"""Autoregressive baseline: next-token prediction, with an exact likelihood.

    -log p(x) = sum over j of -log p(x_j | x_1 ... x_{j-1})

The baseline of the diffusion models here, as in their papers (Sahoo et al. 2024, section 5.1): the
same blocks, data and tokens, with causal attention. Column j reads token j - 1 and predicts token
j, so that all L tokens are predicted, the first one from [MASK], which no text contains. There is
no noise and no random draw: any number of held-out samples gives the same value.

With separate attention for documents packed into one sample, a column's input belongs to the
document that it predicts: the EOS of the previous document is the start symbol, and the only token
of that document it sees.
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
    """The objective of autoregressive (next-token) language models."""

    summary: ClassVar[str] = (
        "A causal transformer that writes text from left to right, one token at a time: the "
        "autoregressive baseline of Sahoo et al. 2024."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {"model": {"time_conditioning": False}}
    noise = "none"
    sampler = "left_to_right"

    @property
    def needs(self) -> frozenset[Need]:
        """Ids, the objective's own causal attention, and an output that is not shifted again."""
        return frozenset({Need.IDS, Need.OWN_LAYOUT, Need.OWN_POSITION})

    def layout(self, length: int) -> AttentionLayout:
        """Causal attention."""
        return Causal()

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Shift the text right by one; all of its tokens are predicted."""
        return self.bound_corrupt(batch | {"free": batch["valid"]}, draws, model)

    def scope(self, *, padded: bool) -> Scope:
        """Exact -log p. EOS marks the end of a text, and is predicted and counted."""
        told = "behind the EOS, neither seen nor predicted nor counted" if padded else "none"
        return Scope(length_given=False, padding=told, end_masked=padded, exact=True)

    def counted(self, batch: Batch, model: ModelConfig) -> Tensor:
        """The tokens ``[B, L]`` (bool) that are scored, the EOS of padded texts among them."""
        return batch["free"] & (batch["tokens"] != model.mask)

    def bound_corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """As in training: tokens that are not free are read, and not predicted."""
        tokens, valid, num = batch["tokens"], batch["valid"], len(batch["tokens"])
        predicted_BL = self.counted(batch, model)
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
        """-log p of each token, in nats."""
        return {LOSS: self.bound_losses(prediction, noisy)}

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """-log p(x_j | x_1 ... x_{j-1}), ``[M]`` float32."""
        assert prediction.logits is not None
        return -prediction.logits.log_prob(noisy.target_BL[noisy.predict_mask_BL])
