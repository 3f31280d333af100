"""``generate`` of an exported GENIE: a target for every source, by the project's own samplers."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerateEncoderDecoderOutput

from model.samplers import Sampler
from tools.convert.huggingface.generation_settings import (
    Settings,
    generated,
    job_of,
    padding_mask,
    settings_of,
)
from tools.convert.huggingface.trained_by import sampler_class
from tools.convert.huggingface.wrapper import one_of


class TargetGenerationMixin(GenerationMixin):
    """``generate`` for a model that wraps an encoder-decoder."""

    model_config: Any
    objective: Any
    denoiser: Any
    config: Any

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **words: Any,
    ) -> Any:
        """Targets ``[B * num_return_sequences, max_length]``, padded after their end.

        Args:
            input_ids: ``[B, S]``, the sources; or inputs_embeds ``[B, S, D]``, their embeddings.
            attention_mask: ``[B, S]``, 0 at padding, which may stand anywhere in a row. By
                default padding is what has ``pad_token_id``.
            max_length, max_new_tokens: positions of a target, padding included (default: as
                trained).
            sampling_steps, sampler: evaluations of the network, and how (default: the
                configuration's).
            seed: of all draws; by default from torch's generator.
            words: these, fields of the sampler, and what transformers' ``GenerationConfig``
                has, as far as it can be done.

        Raises:
            ValueError: a number is out of range, there is no such sampler, or a configuration
                asks for what cannot be done. TypeError: a word that is no setting here.
        """
        inputs_embeds = words.pop("inputs_embeds", None)
        asked = settings_of(self, generation_config, words)
        chosen = self._sampler(asked)
        whole, new = asked.lengths()
        length = next(n for n in (new, whole, self.config.target_length) if n is not None)
        if length < 1:
            raise ValueError("max_length must be at least 1")
        if input_ids is not None:
            attention_mask = padding_mask(input_ids, attention_mask, asked)
        source = self._source(one_of(input_ids, inputs_embeds), attention_mask)
        copies = asked.get("num_return_sequences", 1)
        source_BS, valid_BS = (
            x.repeat_interleave(copies, dim=0) for x in (source.read, source.valid_BS)
        )
        ids_BL = torch.zeros(len(source_BS), length, dtype=torch.int64, device=source_BS.device)
        job = job_of(
            self.model_config,
            self.objective,
            self.denoiser,
            asked,
            ids_BL=ids_BL,
            free_BL=torch.ones_like(ids_BL, dtype=torch.bool),
            source_BS=source_BS,
            source_valid_BS=valid_BS,
        )
        ids_BL = _ended(chosen.run(job), asked)
        return generated(ids_BL, asked, GenerateEncoderDecoderOutput)

    def _source(self, read: Tensor, attention_mask: Tensor | None) -> Any:
        """Sources and what of them is no padding."""
        raise NotImplementedError

    def _sampler(self, asked: Settings) -> Sampler:
        name = asked.get("sampler") or self.objective.sampler
        kind = sampler_class(name)
        own = tuple(f.name for f in fields(kind) if f.name != "steps")
        asked.check(("sampler", "sampling_steps", *own), f"{name} has {', '.join(own)}")
        given = {setting: asked.get(setting) for setting in own}
        made: Sampler = kind(
            steps=asked.get("sampling_steps"),
            **{setting: value for setting, value in given.items() if value is not None},
        )
        return made


def _ended(ids_BL: Tensor, asked: Settings) -> Tensor:
    """Padding from the first PAD or EOS on, where PAD is known."""
    pad = asked.special("pad_token_id")
    if not pad:
        return ids_BL
    ends = torch.tensor([*pad, *asked.special("eos_token_id")], device=ids_BL.device)
    return ids_BL.masked_fill(torch.isin(ids_BL, ends).cumsum(dim=1) > 0, pad[0])
