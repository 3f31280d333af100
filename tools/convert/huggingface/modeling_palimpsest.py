"""An exported denoiser as transformers models: masked-LM with ``generate``, classifier, encoder.

All wrap the project's own denoiser, whose parameters keep their names behind ``denoiser.``.
A padding mask hides the padding from every position, whatever the model was trained with.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.utils import ModelOutput

from model.networks.build import build
from model.networks.config import ModelConfig
from model.networks.linears import Head
from model.query import Query
from tools.convert.huggingface.configuration_palimpsest import PalimpsestConfig
from tools.convert.huggingface.infilling import InfillingGenerationMixin
from tools.convert.huggingface.labels import check_classes, check_ids, mean_loss
from tools.convert.huggingface.padding import TextFirst, text_first
from tools.convert.huggingface.trained_by import model_config
from tools.convert.huggingface.wrapper import Wrapper, as_asked, one_of, reading, recording

if TYPE_CHECKING:  # not loaded here; what is imported is saved beside the weights again
    from tools.convert.huggingface.fill_mask import TemplatePipeline  # noqa: F401

Hidden = tuple[Tensor, ...] | None


class PalimpsestPreTrainedModel(Wrapper):
    """Base class: the denoiser, its inputs and its hidden states."""

    config_class = PalimpsestConfig
    _no_split_modules = ["Block", "PlainBlock"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.model_config = model_config(config.denoiser)
        self.denoiser = build(self._hiding_padding())
        self._tied_weights_keys = self._tied()

    def _hiding_padding(self) -> ModelConfig:
        """The architecture, with padding hidden from attention."""
        changed: Any = {"hide_padding": True}
        return replace(self.model_config, **changed)

    def _tied(self) -> dict[str, str]:
        """The head's weight, and that which it is, where they are one."""
        if not self.model_config.shares_embedding or not isinstance(
            self.denoiser.output.head, Head
        ):
            return {}
        head = f"denoiser.layers.{self.denoiser.last}.head.weight"
        return {head: "denoiser.layers.0.tokens.weight"}

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what a checkpoint does not hold: a new classifier."""
        super()._init_weights(module)
        if module is getattr(self, "classifier", None):
            module.weight.normal_(0.0, 0.02)
            module.bias.zero_()

    def _run(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        level: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **asked: bool | None,
    ) -> tuple[Tensor, Hidden, TextFirst, bool]:
        """The denoiser's output ``[B, L, ...]``, hidden states if asked for, and what is text.

        Hidden states are those of the embedding and of every block, ``[B, L, D]`` each; the
        last is what the head reads, as transformers has it. The last item of the tuple is
        whether named outputs are asked for.
        """
        named, hidden = self._asked(**asked)
        read = one_of(input_ids, inputs_embeds)
        shape = read.shape[:2]
        place = text_first(attention_mask, read)
        level_BK = self._level(read, place) if level is None else level
        if level_BK.dim() == 1:
            level_BK = level_BK[:, None]
        if level_BK.shape[1] > 1:
            level_BK = place.forth(level_BK)
        predict_mask_BL = torch.ones(shape, dtype=torch.bool, device=read.device)
        query = Query(
            ids_BL=place.forth(read),
            level_BK=level_BK,
            predict_mask_BL=predict_mask_BL,
            valid_BL=place.valid_BL,
        )
        if not hidden:
            out = self.denoiser(query)["logits"].unflatten(0, shape)
            return place.back(out), None, place, named
        layers = [self.denoiser.layers[str(index)] for index in range(self.denoiser.last)]
        with recording(layers) as states, reading(self.denoiser.output.head) as last:
            out = self.denoiser(query)["logits"].unflatten(0, shape)
        states[-1] = last[0].unflatten(0, shape)
        return place.back(out), tuple(place.back(state) for state in states), place, named

    def _level(self, read: Tensor, place: TextFirst) -> Tensor:
        """The noise level ``[B, 1]`` where none is given: the share of masked positions."""
        if read.is_floating_point():
            if self.model_config.time_conditioning:
                raise ValueError(
                    "inputs_embeds do not say which positions are masked: give the level too"
                )
            return torch.zeros(len(read), 1, device=read.device)
        masked_BL = read == self.model_config.mask
        if place.given_BL is None:
            return masked_BL.float().mean(dim=1, keepdim=True)
        num_B1 = place.given_BL.sum(dim=1, keepdim=True).clamp(min=1)
        return (masked_BL & place.given_BL).sum(dim=1, keepdim=True) / num_B1


class PalimpsestModel(PalimpsestPreTrainedModel):
    """Hidden states after the last norm."""

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.denoiser.output.remove_head()
        self._tied_weights_keys = self._tied()
        self.post_init()

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **given: Any
    ) -> Any:
        """Ids ``[B, L]`` to hidden states ``[B, L, D]``.

        Args:
            given: ``level``, ``inputs_embeds`` and what is asked for: see
                :class:`PalimpsestWithLoss`.
        """
        last, states, _, named = self._run(input_ids, attention_mask, **given)
        return as_asked(BaseModelOutput(last_hidden_state=last, hidden_states=states), named)


class PalimpsestWithLoss(PalimpsestPreTrainedModel):
    """A model that takes labels."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        level: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **asked: bool | None,
    ) -> Any:
        """Logits, and the loss where there are labels; shapes are given by the class.

        Args:
            input_ids: ``[B, L]``, the mask token where an id is wanted.
            attention_mask: ``[B, L]``, 0 at padding, which may stand anywhere in a row.
            level: ``[B]``, the noise level in [0, 1] of a time-conditioned model; by default
                the share of masked positions.
            inputs_embeds: ``[B, L, D]``, in place of ``input_ids``.
            asked: ``output_hidden_states`` and ``return_dict``, as in transformers.

        Raises:
            ValueError: an argument does not fit the others, or a label cannot be answered.
        """
        self._check_labels(labels)
        last, states, place, named = self._run(
            input_ids, attention_mask, level, inputs_embeds, **asked
        )
        return as_asked(self._outputs(last, states, place, labels), named)

    def _check_labels(self, labels: Tensor | None) -> None:
        """ValueError for labels that are wrong whatever the input."""

    def _outputs(
        self, last_BLD: Tensor, states: Hidden, place: TextFirst, labels: Tensor | None
    ) -> ModelOutput:
        """The named outputs, by the denoiser's output and the hidden states."""
        raise NotImplementedError


class PalimpsestForMaskedLM(PalimpsestWithLoss, InfillingGenerationMixin):
    """The denoiser itself: logits ``[B, L, num_ids]`` of the clean id at every position.

    They are -inf at the mask token, which is never an answer. Labels are ``[B, L]``, -100 where
    no loss is wanted; the loss is their mean -log p, 0 where there are none.
    """

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.post_init()

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Put another head there; a tied one's weight becomes the input's table too.

        Raises:
            ValueError: it is no head of this kind and size.
        """
        head = self.denoiser.output.head
        if not isinstance(value, type(head)) or value.weight.shape != head.weight.shape:
            raise ValueError(f"give a {type(head).__name__} with {len(head.weight)} rows")
        self.denoiser.output.head = value
        self._share()

    def _check_labels(self, labels: Tensor | None) -> None:
        if labels is not None:
            check_ids(labels, self.model_config)

    def _outputs(
        self, last_BLD: Tensor, states: Hidden, place: TextFirst, labels: Tensor | None
    ) -> ModelOutput:
        logits = last_BLD[..., : self.model_config.num_ids]
        if labels is not None and labels.shape != logits.shape[:2]:
            raise ValueError(
                f"labels have shape {list(labels.shape)}; give one for each of "
                f"{list(logits.shape[:2])} positions"
            )
        loss = None if labels is None else mean_loss(logits, labels)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=states)


class PalimpsestForSequenceClassification(PalimpsestWithLoss):
    """A linear layer on the mean of the hidden states of all that is no padding.

    Logits are ``[B, num_labels]``. Labels are ``[B]`` of int64: classes, -100 where no loss is
    wanted; or floats: targets, ``[B]`` or ``[B, num_labels]``; several floats a sample are
    labels of their own each.
    """

    def __init__(self, config: PalimpsestConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.denoiser.output.remove_head()
        self._tied_weights_keys = self._tied()
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.model_config.width, config.num_labels or 2)
        self.post_init()

    def _outputs(
        self, last_BLD: Tensor, states: Hidden, place: TextFirst, labels: Tensor | None
    ) -> ModelOutput:
        pooled_BD = last_BLD.float().mean(dim=1)
        if place.given_BL is not None:
            text_BL1 = place.given_BL[..., None]
            total_BD = last_BLD.float().masked_fill(~text_BL1, 0.0).sum(dim=1)
            pooled_BD = total_BD / text_BL1.sum(dim=1).clamp(min=1)
        logits = self.classifier(self.dropout(pooled_BD.to(last_BLD.dtype)))
        loss = None if labels is None else self._loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=states)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind = self.config.problem_type
        if kind == "regression" or (kind is None and self.num_labels == 1):
            wanted = labels.to(logits.dtype).view_as(logits.squeeze(-1))
            return F.mse_loss(logits.squeeze(-1), wanted)
        if kind == "multi_label_classification" or labels.is_floating_point():
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        check_classes(labels, logits.shape[-1])
        return mean_loss(logits, labels)
