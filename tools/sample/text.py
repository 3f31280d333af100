"""Sampling texts, from nothing or around a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.errors import UserError
from data_pipeline.tokenizer import Tokenizer
from model.samplers import Sampler
from pretrain.checkpoint.weights import Loaded
from pretrain.config import RunConfig
from tools.sample.loop import Start, draw_samples
from tools.sample.prompt import Template, parse


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples, and evaluations of the network (NFE) for each of them.

    Args:
        ids: their tokens, without the frame and up to the EOS by which they end.
        texts: the same decoded.
    """

    ids: list[list[int]]
    texts: list[str]
    evaluations: list[int]


def sample(
    loaded: Loaded,
    tokenizer: Tokenizer,
    *,
    prompt: str,
    num: int,
    length: int,
    sampler: Sampler,
    seed: int,
    batch: int,
) -> Samples:
    """``num`` texts of ``length`` positions, frame included, around the prompt.

    A model of padded texts decides where they end, unless it was given their lengths.

    Raises:
        UserError: the prompt does not fit, or the sampler cannot write where its blanks are.
    """
    config = loaded.config
    template = template_of(prompt, tokenizer, length, config)
    try:
        sampler.check_free(torch.tensor([template.blank]), config.objective)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from error

    def start(numbers: Sequence[int]) -> Start:
        ids_L, free_L = (
            torch.tensor(values, device=loaded.device) for values in (template.ids, template.blank)
        )
        return {
            "ids_BL": ids_L.repeat(len(numbers), 1),
            "free_BL": free_L.repeat(len(numbers), 1),
        }

    drawn = draw_samples(
        loaded,
        sampler,
        start,
        order=range(num),
        length=length,
        seed=seed,
        batch=batch,
        end=tokenizer.eos_id if _end_masked(config) else None,
    )
    ids = [_without_frame(one.ids, template, tokenizer, config) for one in drawn]
    return Samples(
        ids=ids,
        texts=[tokenizer.decode(own) for own in ids],
        evaluations=[one.evaluations for one in drawn],
    )


def template_of(prompt: str, tokenizer: Tokenizer, length: int, config: RunConfig) -> Template:
    """The template of a prompt for a model, whose end is a blank where the model decides on it.

    Raises:
        UserError: the prompt does not fit.
    """
    return parse(prompt, tokenizer, length, config.model.mask, open_end=_end_masked(config))


def _end_masked(config: RunConfig) -> bool:
    return config.objective.scope(padded=config.data.packing == "pad").end_masked


def _without_frame(
    ids: list[int], template: Template, tokenizer: Tokenizer, config: RunConfig
) -> list[int]:
    kept = template.text(ids, tokenizer.eos_id) if _end_masked(config) else ids
    framed = len(kept) == len(ids) and not template.blank[-1]
    return kept[1:-1] if framed else kept[1:]
