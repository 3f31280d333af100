"""Sampling texts, from nothing or around a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.errors import UserError
from data_pipeline.tokenizer import Tokenizer
from model.samplers import Sampler
from pretrain.checkpoint.weights import Loaded
from tools.sample.loop import Start, draw_samples
from tools.sample.prompt import parse


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Texts, and evaluations of the network (NFE) for each of them."""

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
    ends = config.objective.scope(padded=config.data.packing == "pad").end_masked
    template = parse(prompt, tokenizer, length, config.model.mask, open_end=ends)
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
        end=tokenizer.eos_id if ends else None,
    )
    kept = [template.text(one.ids, tokenizer.eos_id) if ends else one.ids for one in drawn]
    return Samples(
        texts=[tokenizer.decode(ids) for ids in kept],
        evaluations=[one.evaluations for one in drawn],
    )
