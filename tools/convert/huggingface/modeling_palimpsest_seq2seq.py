"""An exported GENIE as a transformers model: targets from sources, by diffusion.

It wraps the project's own encoder-decoder, whose parameters keep their names behind
``denoiser.``, its objective and its samplers.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from model.config import from_fields
from model.draws import Draws
from model.gaussian_samplers import GaussianSampler
from model.gaussian_samplers.ddim import Ddim
from model.gaussian_samplers.ddpm import Ddpm
from model.generate_embeddings import generate_embeddings
from model.linears import Head, exclusion
from model.network import Whole
from model.objectives.genie import Genie
from model.prediction import Reconstruction
from model.query import Query
from model.seq2seq import Seq2Seq
from tools.convert.huggingface.configuration_palimpsest import PalimpsestSeq2SeqConfig

SAMPLERS = {"ddpm": Ddpm, "ddim": Ddim}


@dataclass
class DenoiserOutput(ModelOutput):
    """What one evaluation of the network gives.

    Args:
        loss: GENIE's, the mean over all target positions.
        logits: ``[B, L, num_ids]`` of the tokens nearest to the prediction; -inf at the mask
            token, which is never an answer.
        prediction: ``[B, L, E]``: clean embeddings, noise or velocity, as trained.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    prediction: Tensor | None = None


class PalimpsestForSeq2SeqLM(PreTrainedModel):
    """The encoder-decoder, its loss, and its sampling loop as ``generate``."""

    config_class = PalimpsestSeq2SeqConfig
    base_model_prefix = "denoiser"
    main_input_name = "input_ids"
    _no_split_modules = ["EncoderBlock", "BertBlock", "DecoderBlock"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, config: PalimpsestSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model_config = from_fields(config.denoiser)
        self.objective = Genie(**config.objective)
        self.denoiser = Seq2Seq(self.model_config)
        last = f"denoiser.layers.{self.denoiser.last}"
        table = "denoiser.layers.0.tokens.weight"
        self._tied_weights_keys = {f"{last}.tokens.weight": table, f"{last}.head.weight": table}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Of what a checkpoint does not hold: the head's -inf."""
        if isinstance(module, Head):
            module.exclusion.copy_(exclusion(self.model_config.excluded_rows))

    def get_input_embeddings(self) -> nn.Module:
        """The table of the source's token embeddings."""
        return self.denoiser.embedding.source_tokens

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        level: Tensor | None = None,
        draft: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """One evaluation of the network: with ``labels`` for the loss, else at given embeddings.

        Args:
            input_ids: ``[B, S]``, the sources.
            attention_mask: ``[B, S]``, 0 at padding.
            labels: ``[B, L]``, the targets; they get noise of a random level each while
                training, of fixed levels in evaluation. -100 stands for padding, which is a
                target like any other: it is how the model says where its text ends.
            decoder_inputs_embeds: ``[B, L, E]``, noisy embeddings of the targets.
            level: ``[B]``, their noise levels in (0, 1].
            draft: ``[B, L, E]``, the prediction of the step before, with self-conditioning.

        Raises:
            ValueError: neither ``labels`` nor ``decoder_inputs_embeds`` with ``level``.
        """
        valid_BS = _valid(input_ids, attention_mask)
        loss = None
        if labels is not None:
            found, loss = self._trained(input_ids, valid_BS, labels)
            shape = labels.shape
        elif decoder_inputs_embeds is not None and level is not None:
            shape = decoder_inputs_embeds.shape[:2]
            device = input_ids.device
            found = self._predict(
                Query(
                    ids_BL=torch.zeros(shape, dtype=torch.int64, device=device),
                    level_BK=level[:, None].float(),
                    where_BL=torch.ones(shape, dtype=torch.bool, device=device),
                    signal_B1=torch.zeros(shape[0], 1, device=device),
                    noise_BLE=decoder_inputs_embeds.float(),
                    draft_BLE=draft,
                    source_BS=input_ids,
                    source_valid_BS=valid_BS,
                )
            )
        else:
            raise ValueError(
                "give labels for the loss, or decoder_inputs_embeds and level for one "
                "prediction; generate() makes text"
            )
        table = self.denoiser.output.weight
        logits = self.denoiser.output.head(found.output_ME.to(table.dtype)).unflatten(0, shape)
        logits = logits[..., : self.model_config.num_ids]
        prediction = found.output_ME.unflatten(0, shape)
        if return_dict is False:
            return (logits, prediction) if loss is None else (loss, logits, prediction)
        return DenoiserOutput(loss=loss, logits=logits, prediction=prediction)

    def _predict(self, query: Query) -> Reconstruction:
        found = Whole(self.denoiser).predict(query)
        assert isinstance(found, Reconstruction)
        return found

    def _trained(
        self, source_BS: Tensor, valid_BS: Tensor, labels_BL: Tensor
    ) -> tuple[Reconstruction, Tensor]:
        """The prediction for noised targets, and the loss."""
        num = len(labels_BL)
        start = int(torch.randint(2**40, ())) * num if self.training else 0
        batch = {
            "tokens": torch.where(labels_BL == -100, self._pad(labels_BL), labels_BL),
            "valid": torch.ones_like(labels_BL, dtype=torch.bool),
            "position": start + torch.arange(num, device=labels_BL.device),
            "source": source_BS,
            "source_valid": valid_BS,
        }
        draws = Draws(seed=0, split="train" if self.training else "valid", batch=num)
        noisy = self.objective.corrupt(batch, draws, self.model_config)
        if self.objective.drafts:
            with torch.no_grad():
                noisy = self.objective.with_draft(
                    noisy, self._predict(self.objective.draft_query(noisy))
                )
        found = self._predict(noisy)
        return found, self.objective.token_losses(found, noisy).sum() / noisy.count

    def _pad(self, labels_BL: Tensor) -> int:
        pad = self.config.pad_token_id
        if pad is None and bool((labels_BL == -100).any()):
            raise ValueError("labels hold -100, which is padding: set config.pad_token_id")
        return 0 if pad is None else int(pad)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_length: int | None = None,
        sampling_steps: int | None = None,
        sampler: Literal["ddpm", "ddim"] = "ddpm",
        num_return_sequences: int = 1,
        seed: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Targets ``[B * num_return_sequences, max_length]``, padded after their end.

        Args:
            max_length: positions of a target, padding included (default: as trained).
            sampling_steps: evaluations of the network (default: 50, or all where there are fewer).
            seed: of all draws; by default from torch's generator.
            settings: of the sampler: variance (ddpm), eta (ddim), clamp_below.
        """
        rows = input_ids.repeat_interleave(num_return_sequences, dim=0)
        valid_BS = _valid(input_ids, attention_mask).repeat_interleave(num_return_sequences, dim=0)
        steps = sampling_steps or min(50, self.objective.num_steps)
        chosen: GaussianSampler = SAMPLERS[sampler](steps=steps, **settings)
        if seed is None:
            seed = int(torch.randint(2**40, ()))
        ids_BL = generate_embeddings(
            rows,
            valid_BS,
            torch.arange(len(rows), device=rows.device),
            Whole(self.denoiser),
            length=max_length or self.config.target_length,
            width=self.model_config.table_width,
            sampler=chosen,
            process=self.objective.process,
            prediction=self.objective.prediction,
            self_conditioning=self.objective.drafts,
            draws=Draws(seed=seed, split="sample", batch=len(rows)),
        )
        pad, end = self.config.pad_token_id, self.config.eos_token_id
        if pad is None:
            return ids_BL
        ends_BL = (ids_BL == pad) | (ids_BL == (pad if end is None else end))
        return ids_BL.masked_fill(ends_BL.cumsum(dim=1) > 0, pad)


def _valid(ids_BS: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(ids_BS, dtype=torch.bool)
    return attention_mask.bool()
