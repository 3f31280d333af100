"""Settings of ``generate``: keyword arguments and transformers' ``GenerationConfig``.

Words go before a ``generation_config`` that is passed, and this before the model's own, as in
transformers. Most settings there are of sampling from left to right, which is not done here:
whatever is set to something that would change the result, and cannot, is refused by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from model.draws import Draws
from model.networks.config import ModelConfig
from model.samplers import Job, SampledNetwork

DEFAULTS = GenerationConfig()._get_default_generation_params()
FIELDS = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
SILENT = {
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size",
    "compile_config", "disable_compile", "is_assistant", "low_memory", "decoder_start_token_id",
    "transformers_version", "synced_gpus", "labels", "tokenizer", "do_sample",
}  # fmt: skip
"""Settings that change no result; the Trainer and pipelines pass them along."""
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
COMMON = (
    "max_length", "max_new_tokens", "num_return_sequences", "return_dict_in_generate", "seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All sources of settings, from the strongest to the weakest.

    Args:
        words: of the call. given: a configuration that was passed. own: the model's own.
        last: its config.json.
    """

    words: Mapping[str, Any]
    given: Mapping[str, Any]
    own: Mapping[str, Any]
    last: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of the strongest source that has one."""
        values = (source.get(name) for source in self._sources)
        return next((value for value in values if value is not None), default)

    @property
    def _sources(self) -> tuple[Mapping[str, Any], ...]:
        return (self.words, self.given, self.own, self.last)

    def lengths(self) -> tuple[int | None, int | None]:
        """``max_length`` or ``max_new_tokens``: of the strongest source that has one of them."""
        for source in self._sources:
            new, whole = source.get("max_new_tokens"), source.get("max_length")
            if new is not None or whole is not None:
                return (None, new) if new is not None else (whole, None)
        return None, None

    def special(self, name: str) -> list[int]:
        """The ids of a special token: none, one, or several."""
        found = self.get(name)
        if found is None:
            return []
        return list(map(int, found)) if isinstance(found, list | tuple) else [int(found)]

    def check(self, known: tuple[str, ...], named: str) -> None:
        """Refuse what cannot be done.

        Args:
            known: settings of this kind of model beside the common ones. named: what it is,
                and what it has, for the error message.

        Raises:
            TypeError: a word that is no setting here. ValueError: a configuration sets one.
        """
        allowed = {*COMMON, *SPECIAL, *known}
        for name, value in self.words.items():
            if name not in allowed and not _harmless(name, value):
                raise TypeError(f"generate() knows no {name}; {named}")
        # The Seq2SeqTrainer writes transformers' defaults into the model's own.
        own = {name: v for name, v in self.own.items() if v != DEFAULTS.get(name)}
        for name, value in (*self.given.items(), *own.items()):
            if name in FIELDS - allowed and not _harmless(name, value):
                raise ValueError(
                    f"generation_config.{name}={value} asks for what cannot be done here; {named}"
                )
        if self.get("num_return_sequences", 1) < 1:
            raise ValueError("num_return_sequences must be at least 1")


def padding_mask(ids_BL: Tensor, given: Tensor | None, asked: Settings) -> Tensor | None:
    """The mask that was given; without one, padding is what has PAD, unless that is EOS too."""
    pad = asked.special("pad_token_id")
    if given is not None or not pad or pad[0] in asked.special("eos_token_id"):
        return given
    return ids_BL != pad[0]


def settings_of(model: Any, given: GenerationConfig | None, words: Mapping[str, Any]) -> Settings:
    """All that is asked of a model."""
    return Settings(
        words=words,
        given={} if given is None else given.to_dict(),
        own=model.generation_config.to_dict(),
        last=model.config.to_dict(),
    )


def job_of(
    model: ModelConfig, objective: Any, network: SampledNetwork, asked: Settings, **start: Any
) -> Job:
    """The job of drawing one sample for each row of a start.

    Without the word ``seed`` that of the draws is taken from torch's generator.

    Args:
        start: ``ids_BL`` and ``free_BL``, and padding, source and end where there are any.
    """
    num, seed = len(start["ids_BL"]), asked.words.get("seed")
    seed = int(torch.randint(2**40, ())) if seed is None else seed
    return Job(
        **start,
        position_B=torch.arange(num, device=start["ids_BL"].device),
        draws=Draws(seed=seed, split="sample", batch=num),
        objective=objective,
        model=model,
        network=network,
    )


def generated(ids_BL: Tensor, asked: Settings, kind: type[ModelOutput]) -> Any:
    """What ``generate`` returns: ids, or an output of transformers where that is asked for."""
    return kind(sequences=ids_BL) if asked.get("return_dict_in_generate", False) else ids_BL


def _harmless(name: str, value: Any) -> bool:
    """Whether a setting asks for nothing: unset, off, or of no account."""
    if value is None or value is False or name in SILENT:
        return True
    if name == "top_k":
        return bool(value == 0)
    return name in DEFAULTS and bool(value == DEFAULTS[name])
