"""``generate`` of an exported MDLM: text for every [MASK], by the project's own sampler.

The samples are those of ``python -m tools.sample`` by the same seed. What is denoised is a
window as in training, BOS and EOS around it; a model of padded texts that decides where
they end (``config.open_end``) puts the EOS.
"""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation import GenerateDecoderOnlyOutput

from model.samplers import Sampler
from tools.convert.huggingface.generation_settings import (
    Settings,
    generated,
    job_of,
    padding_mask,
    settings_of,
)
from tools.convert.huggingface.padding import text_first
from tools.convert.huggingface.trained_by import objective_of, sampler_class

INPUTS = ("input_ids", "attention_mask")
KNOWN = ("sampler", "sampling_steps", "temperature", "do_sample")
NAMED = "masked diffusion has " + ", ".join(("max_length", "max_new_tokens", *KNOWN, "seed"))
NOT_OWN = ("steps", "temperature")
"""Fields of samplers that have another name here, or are known of all of them."""


class InfillingGenerationMixin(GenerationMixin):
    """``generate`` for a masked-LM that wraps a denoiser."""

    model_config: Any
    denoiser: Any
    config: Any
    device: Any

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **words: Any,
    ) -> Any:
        """Ids ``[B * num_return_sequences, L]``.

        Args:
            inputs, input_ids: ``[B, S]``. With [MASK] in every row they are filled in where they
                stand, and all else stays. Without any [MASK] they are beginnings: BOS comes
                before them where it is missing, new text and EOS behind, and padding behind an
                EOS that the model put. By default there is one beginning, without text.
            attention_mask: 0 at padding, wherever it stands. By default padding is what has
                ``pad_token_id``. Each row becomes what it becomes alone; behind a beginning
                padding is left out.
            max_length: positions of a whole text, BOS and EOS included (default: as trained).
            max_new_tokens: positions of new text instead, without them.
            sampling_steps: evaluations of the network at most.
            temperature: of the token draws; ``do_sample=False`` takes the likeliest.
            sampler: its name, of those that suit (default: the objective's own).
            seed: of all draws; by default from torch's generator.
            words: these, other fields of the sampler, and what transformers' ``GenerationConfig``
                has, as far as it can be done.

        Raises:
            ValueError: a number is out of range, a text does not fit, or a configuration asks
                for what cannot be done. TypeError: a word that is no setting here.
        """
        input_ids, attention_mask = (words.pop(name, None) for name in INPUTS)
        asked = settings_of(self, generation_config, words)
        sampler = self._sampler(asked)
        if inputs is not None and input_ids is not None:
            raise ValueError("give inputs or input_ids, which are the same, and not both")
        given = input_ids if inputs is None else inputs
        start_BL, valid_BL = self._start(given, attention_mask, asked)
        end = None if start_BL is given else self._end(asked)
        drawn_BL = self._drawn(sampler, start_BL, valid_BL, asked, end)
        if end is not None:
            drawn_BL = self._padded(drawn_BL, start_BL, asked, end)
        return generated(drawn_BL, asked, GenerateDecoderOnlyOutput)

    def _sampler(self, asked: Settings) -> Sampler:
        objective = objective_of(self.config.objective)
        kind = sampler_class(asked.get("sampler", objective.sampler))
        names = [field.name for field in fields(kind)]
        own = [name for name in names if name not in NOT_OWN]
        known = [name for name in KNOWN if name != "sampling_steps" or "steps" in names]
        asked.check((*known, *own), ", ".join([NAMED, *own]))
        greedy = asked.get("do_sample", True) is False
        settings = {name: asked.get(name) for name in own}
        settings["temperature"] = 0.0 if greedy else asked.get("temperature")
        if "steps" in names:
            settings["steps"] = asked.get("sampling_steps")
        made: Sampler = kind(**{name: x for name, x in settings.items() if x is not None})
        trained = getattr(self.config, "max_position_embeddings", None)
        made = made if trained is None else made.trained_on(trained)
        made.suits(objective, self.model_config)
        return made

    # -- where it starts ------------------------------------------------------------------

    def _start(
        self,
        given_BS: Tensor | None,
        attention_mask: Tensor | None,
        asked: Settings,
    ) -> tuple[Tensor, Tensor | None]:
        """Ids with [MASK] where text is wanted, and what of them is no padding; None for all."""
        if given_BS is None:
            return self._windows([[]], asked)
        attention_mask = padding_mask(given_BS, attention_mask, asked)
        place = text_first(attention_mask, given_BS)
        valid_BS = torch.ones_like(given_BS) if place.given_BL is None else place.given_BL
        valid_BS = valid_BS.bool()
        blank_B = ((given_BS == self.model_config.mask) & valid_BS).any(dim=1)
        if not bool(blank_B.any()):
            rows = [ids[valid].tolist() for ids, valid in zip(given_BS, valid_BS, strict=True)]
            return self._windows(rows, asked)
        if not bool(blank_B.all()):
            raise ValueError(
                "some rows hold [MASK], to be filled in, and some do not, and would be gone on "
                "from: give them in two calls"
            )
        new, whole = (asked.words.get(name) for name in ("max_new_tokens", "max_length"))
        if new is not None or whole not in (None, given_BS.shape[1]):
            raise ValueError(
                "ids that hold [MASK] are filled in where they stand: leave max_length and "
                "max_new_tokens out, or [MASK]"
            )
        return given_BS, None if bool(valid_BS.all()) else valid_BS

    def _windows(self, rows: list[list[int]], asked: Settings) -> tuple[Tensor, Tensor | None]:
        """A window around each beginning, padded behind to the longest."""
        windows = [self._window(row, asked) for row in rows]
        longest = max(map(len, windows))
        pad = (asked.special("pad_token_id") or [0])[0]
        ids = [[*window, *[pad] * (longest - len(window))] for window in windows]
        ids_BL = torch.tensor(ids, device=self.device)
        valid_BL = torch.tensor([[i < len(w) for i in range(longest)] for w in windows])
        return ids_BL, None if bool(valid_BL.all()) else valid_BL.to(self.device)

    def _window(self, text: list[int], asked: Settings) -> list[int]:
        """BOS, the text, [MASK] where more is wanted, EOS."""
        start, end = asked.special("bos_token_id")[:1], asked.special("eos_token_id")[:1]
        if text[: len(start)] != start:
            text = [*start, *text]
        if end and len(text) > 1 and text[-1:] == end:
            text = text[:-1]
        frame = len(text) + len(end)
        if self.config.open_end:
            end = [self.model_config.mask] * len(end)
        length, num_new = asked.lengths()
        if num_new is None:
            length = length or getattr(self.config, "max_position_embeddings", None)
            if length is None:
                raise ValueError("say how long a text is to be: max_length")
            num_new = length - frame
        if num_new < 1:
            raise ValueError(
                f"a beginning of {frame} positions, BOS and EOS included, leaves none to fill: "
                f"give max_length={frame + 1} or more"
            )
        return [*text, *[self.model_config.mask] * num_new, *end]

    def _end(self, asked: Settings) -> int | None:
        """The EOS that ends a new text, if the model decides where."""
        found = asked.special("eos_token_id") if self.config.open_end else []
        return found[0] if found else None

    def _padded(self, drawn_BL: Tensor, start_BL: Tensor, asked: Settings, end: int) -> Tensor:
        """Padding behind the EOS by which each new text ends."""
        copies = asked.get("num_return_sequences", 1)
        start_BL = start_BL.to(drawn_BL.device).repeat_interleave(copies, dim=0)
        new_BL = start_BL == self.model_config.mask
        ends_BL = (new_BL & (drawn_BL == end)).long()
        behind_BL = new_BL & (ends_BL.cumsum(dim=1) > ends_BL)
        return drawn_BL.masked_fill(behind_BL, (asked.special("pad_token_id") or [end])[0])

    # -- what is drawn --------------------------------------------------------------------

    def _drawn(
        self,
        sampler: Sampler,
        start_BL: Tensor,
        valid_BL: Tensor | None,
        asked: Settings,
        end: int | None,
    ) -> Tensor:
        """The samples; padding stays as it is."""
        mask, copies = self.model_config.mask, asked.get("num_return_sequences", 1)
        start_BL = start_BL.to(self.device).repeat_interleave(copies, dim=0)
        if valid_BL is not None:
            valid_BL = valid_BL.to(self.device).repeat_interleave(copies, dim=0)
        place = text_first(valid_BL, start_BL)
        ids_BL = place.forth(start_BL)
        free_BL = ids_BL == mask
        if place.valid_BL is not None:
            # A [MASK] in the padding is none to fill in.
            free_BL = free_BL & place.valid_BL
        job = job_of(
            self.model_config,
            objective_of(self.config.objective),
            self.denoiser,
            asked,
            ids_BL=ids_BL,
            free_BL=free_BL,
            valid_BL=place.valid_BL,
            end=end,
        )
        drawn_BL = place.back(sampler.run(job))
        return drawn_BL if valid_BL is None else torch.where(valid_BL, drawn_BL, start_BL)
