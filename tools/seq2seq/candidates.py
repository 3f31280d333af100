"""Candidates: several targets for each source, drawn by a Gaussian sampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from configs.errors import UserError
from data_pipeline.paragraphs import padded
from data_pipeline.tokenizer import Tokenizer
from model.draws import Draws
from model.gaussian_samplers import GaussianSampler
from model.generate_embeddings import generate_embeddings
from pretrain.checkpoint.weights import Loaded
from tools import command


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Texts of each source, and evaluations of the network for each text."""

    texts: list[list[str]]
    evaluations: int


def draw_candidates(
    loaded: Loaded,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    *,
    num: int,
    sampler: GaussianSampler,
    seed: int,
    batch: int,
    length: int | None = None,
) -> Candidates:
    """``num`` texts for each source; the same seed gives the same ones, whatever the batch.

    Args:
        sources: their ids, which may hold [MASK].
        length: positions of a target, padding included (default: as trained).

    Raises:
        UserError: a source is longer than the model has positions, or the sampler has more
            steps than the process.
    """
    config = loaded.config
    shape, objective = config.model.seq2seq, config.objective
    assert shape is not None
    if sampler.steps > objective.num_steps:
        raise UserError(f"--steps {sampler.steps}: the process has {objective.num_steps}")
    longest = max(map(len, sources))
    limit = config.model.max_length
    if limit is not None and longest > limit:
        raise UserError(f"a source has {longest} tokens; this model has positions for {limit}")
    length = length or config.data.sequence_length
    draws = Draws(seed=seed, split="sample", batch=len(sources) * num)
    total = len(sources) * num
    mine: list[tuple[int, str]] = []
    with (
        torch.inference_mode(),
        command.progress(loaded, total * sampler.steps, "step", "sample") as bar,
    ):
        # Sources of like length together: less padding to be read.
        order = sorted(range(total), key=lambda number: (len(sources[number // num]), number))
        starts = range(0, total, batch)
        for start in starts[loaded.share.rank :: loaded.share.size]:
            numbers = order[start : start + batch]
            own = [sources[number // num] for number in numbers]
            # A model that sees the padding of sources sees as much of it as in training.
            least = config.data.source_length or 0 if shape.ignore_source_padding else 0
            width = max(least, *map(len, own))
            source, source_valid = padded(own, width, tokenizer.pad_id)
            drawn_BL = generate_embeddings(
                torch.from_numpy(source).to(loaded.device),
                torch.from_numpy(source_valid).to(loaded.device),
                torch.tensor(numbers, device=loaded.device),
                loaded.network,
                length=length,
                width=shape.embedding_width,
                sampler=sampler,
                process=objective.process,
                prediction=objective.prediction,
                self_conditioning=objective.refines,
                draws=draws,
                on_step=partial(_advance, bar, len(numbers) * loaded.share.size),
            )
            for number, row in zip(numbers, drawn_BL.tolist(), strict=True):
                mine.append((number, text_of(row, tokenizer)))
    everyone = sorted(item for items in loaded.gather(mine) for item in items)
    texts = [text for _, text in everyone]
    return Candidates(
        texts=[texts[first : first + num] for first in range(0, total, num)],
        evaluations=sampler.steps,
    )


def _advance(bar: Any, size: int, number: int) -> None:
    bar.update(size)


def text_of(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text before the first PAD or EOS."""
    ends = (tokenizer.pad_id, tokenizer.eos_id)
    end = next((place for place, found in enumerate(ids) if found in ends), len(ids))
    return tokenizer.decode(list(ids[:end]))
