"""The held-out bound or loss of a loaded checkpoint, with its interval and what gave it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from data_pipeline.shards import open_split
from data_pipeline.windows import held_out
from model.draws import Draws
from model.prediction import Ask, Networks
from pretrain.checkpoint.networks import asking
from pretrain.checkpoint.weights import Loaded, Which
from pretrain.data import corpus_path, open_corpus
from pretrain.evaluation.bound import document_losses, summarise
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.interval import ratio_interval
from pretrain.evaluation.losses import mean_losses
from pretrain.run import console
from pretrain.run.progress import Counter

OF_PAIRS = "held-out samples"
"""Sampling units of an interval where samples are not cut from documents."""


def held_out_bound(
    loaded: Loaded, split_name: str, *, which: Which, samples: int, batch: int, seed: int
) -> dict[str, Any]:
    """The summary of :func:`summarise`, with its interval and the settings that gave it."""
    config = loaded.config
    path = corpus_path(config)
    tokenizer = loaded.tokenizer()
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    split = open_split(path, split_name, tokenizer=tokenizer)
    how: Any = config.data.packing
    mask = config.data.document_mask
    windows = held_out(split, config.data.sequence_length, how, segments=mask)
    scope = config.objective.scope(padded=how == "pad")
    samples = 1 if scope.exact else samples
    ask = Networks(loaded.network.ask)
    with _evaluator(loaded, ask, len(windows), "window", seed, batch) as evaluator:
        tally = document_losses(evaluator, windows, samples=samples)
    tally = tally.total(loaded.total)
    scored = tally.documents_D3[tally.documents_D3[:, 1] > 0, :2].numpy()
    interval = ratio_interval(scored, seed=seed)
    summary = summarise(tally, train, split, scope)
    facts = {"split": split_name, "weights": which, "samples": samples, "step": loaded.step}
    return {
        "nelbo": summary.pop("nelbo"),
        "nelbo_ci95": interval.bounds,
        "interval": interval.told,
        **summary,
        **facts,
    }


def held_out_loss(
    loaded: Loaded, split_name: str, *, which: Which, batch: int, seed: int
) -> dict[str, Any]:
    """The objective's mean loss on a split, for objectives without a bound."""
    config = loaded.config
    data = replace(config.data, valid_split=split_name)
    loaded.tokenizer()
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus = open_corpus(replace(config, data=data), draws)
    if corpus.held_out is None:
        raise UserError(f"{corpus.path} has no split '{split_name}'")
    if loaded.is_first:
        for note in corpus.notes:
            console.log(f"warning: {note}")
    stream, num = corpus.held_out
    with _evaluator(loaded, asking(loaded), num, "sample", seed, batch) as evaluator:
        found = mean_losses(evaluator, stream, num=num)
    found = found.total(loaded.total)
    losses = found.losses(config.objective)
    assert corpus.document_of is not None
    samples = found.by_sample(config.objective).numpy()
    documents = by_document(samples, corpus.document_of())
    of = OF_PAIRS if config.data.packing == "pairs" else "documents"
    interval = ratio_interval(documents, seed=seed, of=of)
    return {
        "loss": losses.pop("loss"),
        "loss_ci95": interval.bounds,
        "interval": interval.told,
        "bound_on": None,
        "terms": losses,
        "positions": int(found.tokens_N.sum()),
        "documents": len(documents),
        "padding": "as in training",
        "split": split_name,
        "weights": which,
        "samples": num,
        "step": loaded.step,
    }


@contextmanager
def _evaluator(
    loaded: Loaded, ask: Ask, total: int, unit: str, seed: int, batch: int
) -> Iterator[Evaluator]:
    """The evaluator of a loaded checkpoint, without gradient and with a live progress line."""
    with torch.inference_mode(), Counter(total, unit, "evaluate", shown=loaded.is_first) as bar:
        yield Evaluator(
            ask=ask,
            objective=loaded.config.objective,
            model=loaded.config.model,
            seed=seed,
            batch=batch,
            state=loaded.state,
            share=loaded.share,
            device=loaded.device,
            on_batch=bar.update,
        )


def by_document(samples_N2: np.ndarray, document_N: np.ndarray) -> np.ndarray:
    """Sums over the samples of each document: paragraphs of one text are not independent."""
    _, of_N = np.unique(document_N, return_inverse=True)
    sums = [np.bincount(of_N, weights=column) for column in samples_N2.T]
    return np.stack(sums, axis=1)
