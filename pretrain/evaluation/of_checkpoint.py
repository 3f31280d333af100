"""The held-out bound or loss of a loaded checkpoint, with its interval and what gave it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from data_pipeline.packing import FRAME
from data_pipeline.shards import open_split
from model.draws import Draws
from model.naming import method_name
from model.objectives import Objective
from model.prediction import Ask, Networks
from pretrain.checkpoint.networks import asking
from pretrain.checkpoint.weights import Loaded, Which
from pretrain.data import corpus_path, open_corpus
from pretrain.evaluation.bound import Tally, document_losses
from pretrain.evaluation.conventions import Convention
from pretrain.evaluation.conventions.documents import Documents
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.interval import ratio_interval
from pretrain.evaluation.losses import mean_losses
from pretrain.evaluation.rounds import Rounds, Target, enough
from pretrain.evaluation.summary import summarise, units, with_intervals
from pretrain.run import console
from pretrain.run.progress import Counter

OF_PAIRS = "held-out samples"
"""Sampling units of an interval where samples are not cut from documents."""


@dataclass(frozen=True, kw_only=True)
class HeldOutBound:
    """The held-out bound of a checkpoint.

    Args:
        summary: of :func:`pretrain.evaluation.summary.summarise`, with intervals and the settings
            that gave it.
        documents_D2: nats, and the counted tokens that they are of, of each document of the split,
            a mean over the corruptions.
    """

    summary: dict[str, Any]
    documents_D2: np.ndarray


def with_estimator(objective: Any, name: str | None) -> Any:
    """The objective, its bound estimated by the named estimator; as it is for None.

    Raises:
        UserError: it has no estimator of that name.
    """
    if name is None:
        return objective
    if name not in objective.estimators:
        known = ", ".join(objective.estimators) or "none to choose from"
        raise UserError(f"--estimator {name}: {method_name(objective)} has {known}; leave it out")
    return replace(objective, estimator=name)


def held_out_bound(
    loaded: Loaded,
    split_name: str,
    *,
    which: Which,
    batch: int,
    seed: int,
    samples: int | None = None,
    estimator: str | None = None,
    convention: Convention | None = None,
    target: Target | None = None,
) -> HeldOutBound:
    """The bound on a split, with its interval.

    Args:
        samples: corruptions of each window; by default the convention's number.
        estimator: one of the objective's ``estimators``; by default the convention's, or the run's.
        convention: by default our own, :class:`Documents`.
        target: draw more corruptions until they add no more to the interval than it allows.
    """
    config, convention = loaded.config, convention or Documents()
    convention.check(config)
    objective = with_estimator(config.objective, estimator or convention.estimator)
    path, tokenizer = corpus_path(config), loaded.tokenizer()
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    split = open_split(path, split_name, tokenizer=tokenizer)
    windows = convention.windows(split, config)
    scope = objective.scope(padded=config.data.packing == "pad")
    samples = 1 if scope.exact else samples or convention.samples

    with _counter(loaded, len(windows), "window") as counter:
        evaluator = _evaluator(
            loaded, Networks(loaded.network.ask), objective, seed, batch, counter
        )

        def losses(number: int = 0, *, samples: int = 1) -> Tally:
            tally = document_losses(evaluator, windows, samples=samples, number=number)
            return tally.total(loaded.total)

        if target is None or scope.exact:
            width = 0.0 if scope.exact else None
            found = Rounds(tally=losses(samples=samples), samples=samples, half_width=width)
        else:
            found = enough(target, losses, samples, lambda num: counter.expect(num * len(windows)))
    documents_D2 = found.tally.documents_D3[:, :2].numpy() / found.samples
    interval = ratio_interval(documents_D2[documents_D2[:, 1] > 0], seed=seed)
    summary = with_intervals(
        summarise(found.tally, train, split, scope), interval, units(found.tally, split)
    )
    facts = {
        "convention": method_name(convention),
        "counted": convention.told(windows, scope),
        "estimator": getattr(objective, "estimator", None),
        "windows": len(windows),
        "window_tokens": config.data.sequence_length - FRAME,
        "split": split_name,
        "weights": which,
        "samples": found.samples,
        "corruptions_half_width": found.half_width,
        "step": loaded.step,
    }
    return HeldOutBound(summary=summary | facts, documents_D2=documents_D2)


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
    with _counter(loaded, num, "sample") as counter:
        objective = config.objective
        evaluator = _evaluator(loaded, asking(loaded), objective, seed, batch, counter)
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
def _counter(loaded: Loaded, total: int, unit: str) -> Iterator[Counter]:
    """A live progress line, around an evaluation without gradient."""
    with torch.inference_mode(), Counter(total, unit, "evaluate", shown=loaded.is_first) as bar:
        yield bar


def _evaluator(
    loaded: Loaded, ask: Ask, objective: Objective, seed: int, batch: int, counter: Counter
) -> Evaluator:
    """The evaluator of a loaded checkpoint."""
    return Evaluator(
        ask=ask,
        objective=objective,
        model=loaded.config.model,
        seed=seed,
        batch=batch,
        state=loaded.state,
        share=loaded.share,
        device=loaded.device,
        on_batch=counter.update,
    )


def by_document(samples_N2: np.ndarray, document_N: np.ndarray) -> np.ndarray:
    """Sums over the samples of each document: paragraphs of one text are not independent."""
    _, of_N = np.unique(document_N, return_inverse=True)
    sums = [np.bincount(of_N, weights=column) for column in samples_N2.T]
    return np.stack(sums, axis=1)
