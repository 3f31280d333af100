"""Baselines that are counted and not trained, on the tokens that the runs are scored on.

They see what a run sees: where documents share a sample, an n-gram may begin in the document
before; where they do not, before a document stands the EOS of another one. Every token of the
documents and the EOS after each are predicted, in nats, summed by document.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import to_plain
from data_pipeline.shards import Split, open_split
from pretrain.config import RunConfig
from pretrain.data import corpus_path
from pretrain.evaluation.interval import ratio_interval
from pretrain.evaluation.summary import Units, with_intervals
from tools.compare.config import BaselinesConfig, EvaluationConfig
from tools.compare.evaluate import kept, text_facts
from tools.evaluate.judges.ngram import ngram_judge
from tools.evaluate.kneser_ney import KneserNey

BLOCK = 1_000_000
"""Tokens whose probabilities are looked up at once."""

Nats = Callable[[np.ndarray], np.ndarray]
"""From ids ``[L]`` in their order to -log p of each: ``[L]``."""


def baselines(
    asked: BaselinesConfig, how: EvaluationConfig, config: RunConfig, file: Path
) -> list[dict[str, Any]]:
    """The numbers of each baseline, under the names that those of a run have.

    Args:
        config: of a run: its corpus, training split and packing.
        file: where they are kept until what is asked changes.
    """
    data = config.data
    joined = data.packing == "wrap" and not data.document_mask
    question = {
        "text": text_facts(config, (data.train_split, how.split)),
        "joined": joined,
        "seed": how.seed,
        **to_plain(asked),
    }
    found = kept(file, question, lambda: {"rows": _counted(asked, how, config, joined)})
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def _counted(
    asked: BaselinesConfig, how: EvaluationConfig, config: RunConfig, joined: bool
) -> list[dict[str, Any]]:
    path = corpus_path(config)
    train = open_split(path, config.data.train_split)
    held_out = open_split(path, how.split)
    rows = []
    if asked.unigram:
        weight_V = train.counts() + 1.0
        nats_V = -np.log(weight_V / weight_V.sum())
        own = summary(_summed(held_out, lambda ids_L: nats_V[ids_L], 0, joined), held_out, how)
        rows.append({"name": "unigram", "counted": train.num_tokens, **own})
    if order := asked.kneser_ney:
        judge = ngram_judge(train, train.manifest.vocab_size, start=None, order=order)
        nats_D2 = _summed(held_out, _nats(judge.model), order, joined)
        name = f"{order}-gram Kneser-Ney"
        rows.append({"name": name, "counted": judge.tokens, **summary(nats_D2, held_out, how)})
    return rows


def _nats(model: KneserNey) -> Nats:
    return lambda ids_L: -np.log(model.probabilities(ids_L))


def _summed(split: Split, nats: Nats, reach: int, joined: bool) -> np.ndarray:
    """Nats and tokens of each document: ``[D, 2]``.

    Args:
        reach: tokens before a token on which its probability may depend.
        joined: whether these may be another document's.
    """
    sums_D = np.zeros(split.num_documents)
    tokens_D = np.diff(split.document_starts())
    for start, stop in _pieces(split, joined):
        before = min(start, reach) if joined else 0
        ids_L = split.tokens(start - before, stop)
        if before == 0:
            ids_L = np.concatenate([[split.manifest.eos_id], ids_L])
        of_L = split.document_of(start, stop)
        sums_D += np.bincount(of_L, nats(ids_L)[start - stop :], minlength=len(sums_D))
    return np.stack([sums_D, tokens_D], axis=1)


def _pieces(split: Split, joined: bool) -> Iterator[tuple[int, int]]:
    """First token and end of each block of the stream, or of each document."""
    if joined:
        for start in range(0, split.num_tokens, BLOCK):
            yield start, min(start + BLOCK, split.num_tokens)
        return
    starts = split.document_starts().tolist()
    yield from pairwise(starts)


def summary(nats_D2: np.ndarray, split: Split, how: EvaluationConfig) -> dict[str, Any]:
    """Nats per token with their interval, and the same in the other units."""
    nats, tokens = nats_D2.sum(axis=0).tolist()
    characters = split.manifest.characters
    units = Units(
        tokens_per_byte=tokens / split.manifest.bytes,
        tokens_per_character=None if characters is None else tokens / characters,
    )
    nelbo = nats / tokens
    interval = ratio_interval(nats_D2, seed=how.seed)
    numbers = with_intervals({"nelbo": nelbo, **units.of(nelbo)}, interval, units)
    return {**numbers, "exact": True, "tokens": int(tokens), "documents": len(nats_D2)}
