"""The held-out bound: NELBO in nats, its uncertainty, and what to compare it with.

Every token of the split is scored once per sample: the documents' own tokens and their
EOS; what else frames a window is given, and is not counted. The bound is
exact in the sense of :meth:`model.objectives.Bounded.bound_corrupt`. Losses are summed
by document, so that the confidence interval is a bootstrap over documents.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_pipeline.packing import Windows
from data_pipeline.shards import Split
from model.config import ModelConfig
from model.draws import Draws
from model.objectives import Bounded, Objective
from model.prediction import AnyPrediction
from model.query import Query

Predict = Callable[[Query], AnyPrediction]
"""A query to the prediction at its M positions."""

BOOTSTRAPS = 1000

T = TypeVar("T")


class Batches(Protocol):
    """What is evaluated, by position (:class:`data_pipeline.loader.Stream`)."""

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """The samples at these positions."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which items a rank evaluates: every ``size``-th batch, from ``rank`` on.

    Ranks without a batch of their own in the last round run its first one again and count
    nothing, since under ZeRO 3 a forward pass is an act of all ranks.
    """

    rank: int = 0
    size: int = 1


def document_losses(
    predict: Predict,
    objective: Bounded,
    model: ModelConfig,
    windows: Windows,
    *,
    seed: int,
    samples: int,
    batch: int,
    num_windows: int | None = None,
    share: Share = Share(),
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """Nats and tokens of each document, ``[documents, 2]`` float64, summed over ``samples``.

    The corruptions depend on the seed, the window and the sample only: neither on the
    batch size nor on the share. Sum the results of all shares.
    """
    total = min(num_windows or len(windows), len(windows))
    draws = Draws(seed=seed, split="valid", batch=total * samples)
    sums = torch.zeros(windows.split.num_documents, 2, dtype=torch.float64)
    for turn in _batched(_batches(windows, total, batch), share.size):
        mine = share.rank < len(turn)
        first, part = turn[share.rank if mine else 0]
        document, scored = part["document"], part["scored"]
        given = {key: part[key].to(device) for key in ("tokens", "valid")}
        window = first + torch.arange(len(scored), device=device)
        for sample in range(samples):
            inputs = given | {"position": window * samples + sample}
            noisy = objective.bound_corrupt(inputs, scored.to(device), draws, model)
            losses_M = objective.token_losses(predict(noisy), noisy).double().cpu()
            if mine:
                sums[:, 0].index_add_(0, document[noisy.where_BL.cpu()], losses_M)
        if mine:
            tokens = torch.full((int(scored.sum()),), float(samples), dtype=torch.float64)
            sums[:, 1].index_add_(0, document[scored], tokens)
        on_batch(sum(len(part["scored"]) for _, part in turn))
    return sums


def mean_losses(
    predict: Predict,
    objective: Objective,
    model: ModelConfig,
    stream: Batches,
    *,
    seed: int,
    num: int,
    batch: int,
    share: Share = Share(),
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """Sum and number of the losses of the first ``num`` held-out samples, ``[2]`` float64.

    For objectives without a bound. Times are even whatever they are in training, so that
    numbers of different runs can be compared. Sum the results of all shares.
    """
    draws = Draws(seed=seed, split="valid", batch=num)
    sums = torch.zeros(2, dtype=torch.float64)
    firsts = range(0, num, batch)
    for turn in _batched(firsts, share.size):
        mine = share.rank < len(turn)
        first = turn[share.rank if mine else 0]
        positions = np.arange(first, min(num, first + batch))
        samples = {key: value.to(device) for key, value in stream.batch(positions).items()}
        noisy = objective.corrupt(samples, draws, model)
        losses_M = objective.token_losses(predict(noisy), noisy).double().cpu()
        if mine:
            sums += torch.stack([losses_M.sum(), noisy.count.double().cpu()])
        on_batch(len(turn) * batch)
    return sums


def _batches(windows: Windows, total: int, batch: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The number of the first window, and the arrays of ``Windows.read`` as tensors."""
    for start in range(0, total, batch):
        first = start
        for part in windows.read(start, min(total, start + batch)):
            yield first, {key: torch.from_numpy(array) for key, array in part.items()}
            first += len(part["tokens"])


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one perhaps shorter."""
    iterator = iter(items)
    while turn := list(islice(iterator, size)):
        yield turn


def unigram_nats(train_counts: np.ndarray, valid_counts: np.ndarray) -> float:
    """Cross-entropy in nats per token of the add-one unigram model of the training counts."""
    probability = (train_counts + 1) / (train_counts.sum() + len(train_counts))
    return float(-(valid_counts * np.log(probability)).sum() / valid_counts.sum())


def summarise(sums: Tensor, train: Split, valid: Split, *, seed: int) -> dict[str, Any]:
    """The numbers that are reported, from the documents' nats and tokens ``[documents, 2]``.

    Args:
        train: the split whose unigram is compared with; valid: the split that was scored.
        seed: of the bootstrap.

    Returns:
        ``nelbo`` and ``nelbo_ci95`` in nats per token, ``perplexity``, ``bits_per_byte``,
        ``unigram``, ``ratio`` = nelbo / unigram, and the ``documents`` and ``tokens`` of the
        split.
    """
    scored = sums[sums[:, 1] > 0].numpy()
    nelbo = float(scored[:, 0].sum() / scored[:, 1].sum())
    random = np.random.default_rng(seed)
    resampled = scored[random.integers(0, len(scored), (BOOTSTRAPS, len(scored)))].sum(axis=1)
    low, high = np.quantile(resampled[:, 0] / resampled[:, 1], [0.025, 0.975])
    unigram = unigram_nats(train.counts(), valid.counts())
    tokens_per_byte = valid.num_tokens / valid.manifest.bytes
    return {
        "nelbo": nelbo,
        "nelbo_ci95": [float(low), float(high)],
        "perplexity": math.exp(nelbo),
        "bits_per_byte": nelbo / math.log(2) * tokens_per_byte,
        "unigram": unigram,
        "ratio": nelbo / unigram,
        "documents": len(scored),
        "tokens": valid.num_tokens,
    }
