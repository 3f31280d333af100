"""Candidates of an encoder-decoder: several targets for each source."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from configs.errors import UserError
from data_pipeline.source_target import padded
from data_pipeline.tokenizer import Tokenizer
from model.samplers import Sampler
from pretrain.checkpoint.weights import Loaded
from tools.sample.loop import Start, draw_samples


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Candidate texts by source, and the mean number of network evaluations for a text (NFE)."""

    texts: list[list[str]]
    evaluations: float


def draw_candidates(
    loaded: Loaded,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    *,
    num: int,
    sampler: Sampler,
    seed: int,
    batch: int,
    length: int | None = None,
) -> Candidates:
    """``num`` texts for each source; the same seed gives the same ones, whatever the batch.

    Args:
        sources: their ids, which may hold [MASK].
        length: positions of a target, padding included (default: as trained).

    Raises:
        UserError: a source is longer than the model has positions.
    """
    config = loaded.config
    longest = max(map(len, sources))
    limit = config.model.max_length
    if limit is not None and longest > limit:
        raise UserError(f"a source has {longest} tokens; this model has positions for {limit}")
    length = length or config.data.sequence_length
    total = len(sources) * num
    # A model that sees the padding of sources sees as much of it as in training.
    least = config.data.source_length or 0 if config.model.ignore_source_padding else 0

    def start(numbers: Sequence[int]) -> Start:
        own = [sources[number // num] for number in numbers]
        source, source_valid = padded(own, max(least, *map(len, own)), tokenizer.pad_id)
        ids_BL = torch.zeros(len(numbers), length, dtype=torch.int64, device=loaded.device)
        return {
            "ids_BL": ids_BL,
            "free_BL": torch.ones_like(ids_BL, dtype=torch.bool),
            "source_BS": torch.from_numpy(source).to(loaded.device),
            "source_valid_BS": torch.from_numpy(source_valid).to(loaded.device),
        }

    # Sources of like length together: less padding to be read.
    order = sorted(range(total), key=lambda number: (len(sources[number // num]), number))
    drawn = draw_samples(loaded, sampler, start, order=order, length=length, seed=seed, batch=batch)
    texts = [text_of(one.ids, tokenizer) for one in drawn]
    return Candidates(
        texts=[texts[first : first + num] for first in range(0, total, num)],
        evaluations=fmean(one.evaluations for one in drawn),
    )


def text_of(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text before the first PAD or EOS."""
    ends = (tokenizer.pad_id, tokenizer.eos_id)
    end = next((place for place, found in enumerate(ids) if found in ends), len(ids))
    return tokenizer.decode(list(ids[:end]))
