"""An exported denoiser as transformers models: masked-LM, classifier, encoder.

All wrap the project's own denoiser, whose parameters keep their names behind ``denoiser.``.
A padding mask hides the padding from every position, whatever the model was trained with.
"""

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)

from model.config import from_fields
from model.denoiser import Denoiser
from model.linears import Head
from tools.convert.huggingface.configuration_palimpsest import PalimpsestConfig


class PalimpsestPreTrainedModel(PreTrainedModel):
    """What the models here have in common."""

    config_class = PalimpsestConfig
    base_model_prefix = "denoiser"
    main_input_name = "input_ids"
    _no_split_modules = ["Block", "PlainBlock"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.model_config = from_fields(config.denoiser)
        self.denoiser = Denoiser(replace(self.model_config, hide_padding=True))
        self._tied_weights_keys = self._tied()

    def _tied(self) -> dict[str, str]:
        """The head's weight, and that which it is, where they are one."""
        if not self.model_config.tied_head or not isinstance(self.denoiser.output.head, Head):
            return {}
        head = f"denoiser.layers.{self.denoiser.last}.head.weight"
        return {head: "denoiser.layers.0.tokens.weight"}

    def _init_weights(self, module: nn.Module) -> None:
        """Of what a checkpoint does not hold: a new classifier."""
        if module is getattr(self, "classifier", None):
            module.weight.normal_(0.0, 0.02)
            module.bias.zero_()

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self.denoiser.embedding.tokens

    def _run(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        level: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """The denoiser's output at every position, ``[B, L, ...]``."""
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("this model reads input_ids, not inputs_embeds")
        valid = None if attention_mask is None else attention_mask.bool()
        if level is None:
            level = self._level(input_ids, valid)
        if level.dim() == 1:
            level = level[:, None]
        out: Tensor = self.denoiser(input_ids, level, None, valid)
        return out.unflatten(0, input_ids.shape)

    def _level(self, ids_BL: Tensor, valid_BL: Tensor | None) -> Tensor:
        """The noise level ``[B, 1]`` where none is given: the share of masked positions."""
        masked_BL = ids_BL == self.model_config.mask
        if valid_BL is None:
            return masked_BL.float().mean(dim=1, keepdim=True)
        num_B1 = valid_BL.sum(dim=1, keepdim=True).clamp(min=1)
        return (masked_BL & valid_BL).sum(dim=1, keepdim=True) / num_B1


class PalimpsestModel(PalimpsestPreTrainedModel):
    """Hidden states after the last norm."""

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.denoiser.output.remove_head()
        self._tied_weights_keys = self._tied()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        level: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Ids ``[B, L]`` to hidden states ``[B, L, D]``; see :class:`PalimpsestForMaskedLM`."""
        hidden_BLD = self._run(input_ids, attention_mask, level, inputs_embeds)
        return (hidden_BLD,) if return_dict is False else BaseModelOutput(hidden_BLD)


class PalimpsestForMaskedLM(PalimpsestPreTrainedModel):
    """The denoiser itself: logits of the clean id at every position."""

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.denoiser.output.head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        level: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits ``[B, L, num_ids]``; -inf at the mask token, which is never an answer.

        Args:
            input_ids: ``[B, L]``, the mask token where an id is wanted.
            attention_mask: ``[B, L]``, 0 at padding.
            labels: ``[B, L]``, -100 where no loss is wanted; the loss is their mean -log p.
            level: ``[B]``, the noise level in [0, 1] of a time-conditioned model; by default
                the share of masked positions.

        Raises:
            ValueError: there are no ``input_ids``.
        """
        logits = self._run(input_ids, attention_mask, level, inputs_embeds)
        logits = logits[..., : self.model_config.num_ids]
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return MaskedLMOutput(loss=loss, logits=logits)


class PalimpsestForSequenceClassification(PalimpsestPreTrainedModel):
    """A linear layer on the mean of the hidden states of all that is no padding."""

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.denoiser.output.remove_head()
        self._tied_weights_keys = self._tied()
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.model_config.width, config.num_labels or 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        level: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits ``[B, num_labels]`` of ids ``[B, L]``.

        Args:
            labels: ``[B]`` of int64: classes; of floats: targets, ``[B]`` or
                ``[B, num_labels]``; several floats a sample are labels of their own each.

        Raises:
            ValueError: there are no ``input_ids``.
        """
        hidden_BLD = self._run(input_ids, attention_mask, level, inputs_embeds)
        if attention_mask is None:
            pooled_BD = hidden_BLD.mean(dim=1)
        else:
            weight_BL1 = attention_mask[..., None].to(hidden_BLD.dtype)
            pooled_BD = (hidden_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1).clamp(min=1)
        logits = self.classifier(self.dropout(pooled_BD))
        loss = None if labels is None else self._loss(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind == "regression" or (kind is None and self.num_labels == 1):
            return F.mse_loss(
                logits.squeeze(-1), labels.to(logits.dtype).view_as(logits.squeeze(-1))
            )
        if kind == "multi_label_classification" or labels.is_floating_point():
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels.view(-1))
