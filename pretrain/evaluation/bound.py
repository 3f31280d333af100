"""The held-out bound: NELBO in nats, what it is a bound on, and what to compare it with.

Every token of the split is scored once per sample: the documents' own tokens and their
EOS; what else frames a window is given, and is not counted. Of documents that are padded
(:class:`model.objectives.Scope`) either the length is coded too, or it is given: then so is
the EOS, and neither is counted. How many windows a document fills that is cut is given in
both cases. The bound is exact in the sense of
:meth:`model.objectives.Bounded.bound_corrupt`. Losses are summed by document, which is what
:mod:`pretrain.evaluation.interval` asks for.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_pipeline.shards import Split
from data_pipeline.windows import Windows
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LOSS, NO_STATE, Bounded, Noisy, Objective, Scope, State
from model.prediction import Ask, Prediction

SEEN = ("tokens", "valid", "ending", "segment")
"""Arrays of a window that the objective receives."""

WITH_ENDS = "-log p(texts, their ends included)"
CUT = f"{WITH_ENDS}, given how many windows each fills"
GIVEN_LENGTH = "-log p(text given its length)"
"""Descriptions of the quantity that is bounded."""

T = TypeVar("T")


class Batches(Protocol):
    """Samples by position, such as :class:`data_pipeline.loader.Stream`."""

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """The samples at these positions."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The batches that a rank evaluates: every ``size``-th one, from ``rank`` on.

    Ranks without a batch of their own in the last round run its first one again and discard the
    result, since under ZeRO 3 a forward pass is a collective.
    """

    rank: int = 0
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums by document, and counts of the tokens that were scored.

    Args:
        documents_D3: nats, counted tokens and tokens of the stream, summed over the samples.
        ids_R: occurrences of each id among the counted tokens, in one sample.
        windows_D: windows of each document where texts are padded; else 0.
    """

    documents_D3: Tensor
    ids_R: Tensor
    windows_D: Tensor

    def total(self, total: Callable[[Tensor], Tensor]) -> "Tally":
        """Sum over all shares, by a function that sums one tensor."""
        return Tally(
            documents_D3=total(self.documents_D3).cpu(),
            ids_R=total(self.ids_R).cpu(),
            windows_D=total(self.windows_D).cpu(),
        )


def document_losses(
    ask: Ask,
    objective: Bounded,
    model: ModelConfig,
    windows: Windows,
    *,
    seed: int,
    samples: int,
    batch: int,
    state: State = NO_STATE,
    num_windows: int | None = None,
    share: Share = Share(),
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], object] = lambda done: None,
) -> Tally:
    """Nats and tokens of each document.

    The corruptions depend on the seed, the window and the sample only: neither on the
    batch size nor on the share. Sum the results of all shares.

    Args:
        state: of the objective.
    """
    total = min(num_windows or len(windows), len(windows))
    draws = Draws(seed=seed, split="valid", batch=total * samples)
    sums = torch.zeros(windows.split.num_documents, 3, dtype=torch.float64)
    spread = torch.zeros(windows.split.num_documents, dtype=torch.float64)
    ids = torch.zeros(model.vocab_size, dtype=torch.float64)
    for turn in _batched(_batches(windows, total, batch), share.size):
        mine = share.rank < len(turn)
        first, part = turn[share.rank if mine else 0]
        document, scored = part["document"], part["scored"]
        given = {key: part[key].to(device) for key in SEEN if key in part}
        counted = objective.counted(given, scored.to(device), model)
        # How a padded text ends is its document's too.
        owner = torch.where(scored, document, document.amax(dim=1, keepdim=True))
        window = first + torch.arange(len(scored), device=device)
        for sample in range(samples):
            inputs = given | {"position": window * samples + sample}
            noisy = objective.bound_corrupt(inputs, counted, draws, model, state)
            losses_M = ask(noisy, partial(objective.bound_losses, noisy=noisy)).double().cpu()
            if mine:
                row_M, column_M = noisy.predict_mask_BL.cpu().nonzero(as_tuple=True)
                # What is read may be several copies of a text, one behind the other.
                owner_M = owner[row_M, column_M % owner.shape[1]]
                sums[:, 0].index_add_(0, owner_M, losses_M)
        if mine:
            for column, which in ((1, counted.cpu()), (2, scored)):
                tokens = torch.full((int(which.sum()),), float(samples), dtype=torch.float64)
                sums[:, column].index_add_(0, document[which], tokens)
            ids += torch.bincount(part["tokens"][counted.cpu()], minlength=len(ids))
            if "ending" in part:
                spread += torch.bincount(document.amax(dim=1), minlength=len(spread))
        on_batch(sum(len(part["scored"]) for _, part in turn))
    return Tally(documents_D3=sums, ids_R=ids, windows_D=spread)


@dataclass(frozen=True, kw_only=True)
class HeldOutLosses:
    """Losses of held-out samples by term, summed over all shares or of one.

    Args:
        sums_T, counts_T: float64, of each term: its sum and what it is a mean over.
        samples_NT: float64, the same sums of each sample.
        tokens_N: float64, tokens of each sample.
    """

    sums_T: Tensor
    counts_T: Tensor
    samples_NT: Tensor
    tokens_N: Tensor

    def total(self, total: Callable[[Tensor], Tensor]) -> "HeldOutLosses":
        """Sum over all shares, by a function that sums one tensor."""
        return HeldOutLosses(**{name: total(value).cpu() for name, value in vars(self).items()})

    def losses(self, objective: Objective) -> dict[str, float]:
        """The weighted sum of the terms as ``loss``, then each of several by its name."""
        means_T = self.sums_T / self.counts_T.clamp(min=1)
        weights = objective.terms.values()
        found = {LOSS: sum(w * m for w, m in zip(weights, means_T.tolist(), strict=True))}
        if len(means_T) > 1:
            found |= dict(zip(objective.terms, means_T.tolist(), strict=True))
        return found

    def by_sample(self, objective: Objective) -> Tensor:
        """``[N, 2]``: each sample's part of the loss, in the measure of its tokens, and these.

        The first column's sum over the second's is the loss.
        """
        weight_T = torch.tensor(list(objective.terms.values()), dtype=torch.float64)
        scale_T = weight_T * (self.tokens_N.sum() / self.counts_T.clamp(min=1))
        return torch.stack([self.samples_NT @ scale_T, self.tokens_N], dim=1)


def mean_losses(
    ask: Ask,
    objective: Objective,
    model: ModelConfig,
    stream: Batches,
    *,
    seed: int,
    num: int,
    batch: int,
    state: State = NO_STATE,
    share: Share = Share(),
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], object] = lambda done: None,
) -> HeldOutLosses:
    """The losses of the first ``num`` held-out samples, as in training.

    For objectives without a bound. Times are even whatever they are in training, so that
    numbers of different runs can be compared. Sum the results of all shares.
    """
    draws = Draws(seed=seed, split="valid", batch=num)
    names = list(objective.terms)
    sums_T, counts_T = torch.zeros(2, len(names), dtype=torch.float64)
    samples_NT = torch.zeros(num, len(names), dtype=torch.float64)
    tokens_N = torch.zeros(num, dtype=torch.float64)
    firsts = range(0, num, batch)
    for turn in _batched(firsts, share.size):
        mine = share.rank < len(turn)
        first = turn[share.rank if mine else 0]
        positions = np.arange(first, min(num, first + batch))
        samples = {key: value.to(device) for key, value in stream.batch(positions).items()}
        noisy = objective.corrupt(samples, draws, model, state)
        noisy = objective.refine(noisy, ask, draws, state)
        losses = ask(noisy, partial(_all_terms, objective, noisy=noisy))
        if mine:
            # Views of one sample stand len(positions) rows apart.
            row_M = noisy.predict_mask_BL.nonzero()[:, 0].cpu() % len(positions)
            row_B = torch.arange(len(noisy.ids_BL)) % len(positions)
            for term, (name, loss) in enumerate(zip(names, losses, strict=True)):
                own = loss.double().cpu()
                sums_T[term] += own.sum()
                counts_T[term] += noisy.count(name).double().cpu()
                row = row_M if own.dim() == 1 else row_B
                samples_NT[:, term].index_add_(0, first + row, own.flatten())
            tokens_N[first : first + len(positions)] = samples["valid"].sum(dim=1).double().cpu()
        on_batch(len(turn) * batch)
    return HeldOutLosses(sums_T=sums_T, counts_T=counts_T, samples_NT=samples_NT, tokens_N=tokens_N)


def _all_terms(objective: Objective, prediction: Prediction, noisy: Noisy) -> tuple[Tensor, ...]:
    """By term, ``[M]`` or ``[B, 1]``."""
    losses = objective.losses(prediction, noisy)
    return tuple(losses[name] for name in objective.terms)


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


def unigram_nats(
    train_counts: np.ndarray, valid_counts: np.ndarray, absent: int | None = None
) -> float:
    """Cross-entropy in nats per token of the add-one unigram model of the training counts.

    Args:
        absent: an id that is known not to be among the tokens, and has probability 0.
    """
    weight = train_counts + 1.0
    if absent is not None:
        weight[absent] = 0.0
    occurs = valid_counts > 0
    nats = -np.log(weight[occurs] / weight.sum())
    return float((valid_counts[occurs] * nats).sum() / valid_counts.sum())


def summarise(tally: Tally, train: Split, valid: Split, scope: Scope) -> dict[str, Any]:
    """The numbers that are reported, and a description of what they measure.

    Args:
        train: the split whose unigram model is the baseline.
        valid: the split that was scored.

    Returns:
        ``nelbo`` in nats per counted token, ``perplexity``, ``bits_per_byte``, ``unigram`` of
        the same tokens, which knows that none is EOS where EOS is given, ``ratio`` = nelbo /
        unigram; ``bound_on`` what, with ``exact``, ``length_given`` and ``padding``
        (:class:`model.objectives.Scope`); the counted ``tokens`` and how many of them are EOS
        (``eos_counted``) or padding (``padding_counted``, none ever); the ``documents``, and how
        many of them are padded and yet cut (``documents_cut``).
    """
    documents = tally.documents_D3[tally.documents_D3[:, 1] > 0].numpy()
    nats, tokens, of_stream = documents.T
    nelbo = float(nats.sum() / tokens.sum())
    counts = tally.ids_R.numpy()
    eos = valid.manifest.eos_id
    absent = eos if scope.length_given and not counts[eos] else None
    unigram = unigram_nats(train.counts(), counts, absent)
    cut = int((tally.windows_D > 1).sum())
    with_ends = CUT if cut else WITH_ENDS
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(nelbo))
    tokens_per_byte = valid.num_tokens / valid.manifest.bytes
    counted_share = float(tokens.sum() / of_stream.sum())
    return {
        "nelbo": nelbo,
        "perplexity": perplexity,
        "bits_per_byte": nelbo / math.log(2) * tokens_per_byte * counted_share,
        "unigram": unigram,
        "ratio": nelbo / unigram,
        "bound_on": GIVEN_LENGTH if scope.length_given else with_ends,
        "exact": scope.exact,
        "length_given": scope.length_given,
        "padding": scope.padding,
        "documents": len(documents),
        "documents_cut": cut,
        "tokens": int(counts.sum()),
        "eos_counted": int(counts[eos]),
        "padding_counted": 0,
    }
