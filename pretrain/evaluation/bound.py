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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipeline.shards import Split
from data_pipeline.windows import Windows
from model.objectives import Bounded, Scope
from pretrain.evaluation.evaluator import Evaluator

SEEN = ("tokens", "valid", "ending", "segment")
"""Arrays of a window that the objective receives."""

WITH_ENDS = "-log p(texts, their ends included)"
CUT = f"{WITH_ENDS}, given how many windows each fills"
GIVEN_LENGTH = "-log p(text given its length)"
"""Descriptions of the quantity that is bounded."""


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
    evaluator: Evaluator, windows: Windows, *, samples: int, num_windows: int | None = None
) -> Tally:
    """Nats and tokens of each document; the results of all shares have to be summed.

    The corruptions depend on the seed, the window and the sample only: neither on the
    batch size nor on the share.

    Args:
        evaluator: of a bounded objective.
        samples: corruptions of each window.
        num_windows: evaluate only the first windows.
    """
    objective, model, device = evaluator.objective, evaluator.model, evaluator.device
    assert isinstance(objective, Bounded)
    total = min(num_windows or len(windows), len(windows))
    draws = evaluator.draws(total * samples)
    sums = torch.zeros(windows.split.num_documents, 3, dtype=torch.float64)
    spread = torch.zeros(windows.split.num_documents, dtype=torch.float64)
    ids = torch.zeros(model.vocab_size, dtype=torch.float64)
    rounds = evaluator.share.batches(_batches(windows, total, evaluator.batch))
    for turn, (first, part), mine in rounds:
        document, scored = part["document"], part["scored"]
        given = {key: part[key].to(device) for key in SEEN if key in part}
        given["free"] = scored.to(device)
        counted = objective.counted(given, model)
        # The EOS that ends a padded text belongs to its document.
        owner = torch.where(scored, document, document.amax(dim=1, keepdim=True))
        window = first + torch.arange(len(scored), device=device)
        for sample in range(samples):
            inputs = given | {"position": window * samples + sample}
            noisy = objective.bound_corrupt(inputs, draws, model, evaluator.state)
            read = partial(objective.bound_losses, noisy=noisy)
            losses_M = evaluator.ask(noisy, read).double().cpu()
            if mine:
                row_M, column_M = noisy.predict_mask_BL.cpu().nonzero(as_tuple=True)
                # The network may read several copies of a text, one behind the other.
                owner_M = owner[row_M, column_M % owner.shape[1]]
                sums[:, 0].index_add_(0, owner_M, losses_M)
        if mine:
            for column, which in ((1, counted.cpu()), (2, scored)):
                tokens = torch.full((int(which.sum()),), float(samples), dtype=torch.float64)
                sums[:, column].index_add_(0, document[which], tokens)
            ids += torch.bincount(part["tokens"][counted.cpu()], minlength=len(ids))
            if "ending" in part:
                spread += torch.bincount(document.amax(dim=1), minlength=len(spread))
        evaluator.on_batch(sum(len(part["scored"]) for _, part in turn))
    return Tally(documents_D3=sums, ids_R=ids, windows_D=spread)


def _batches(windows: Windows, total: int, batch: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The number of the first window, and the arrays of ``Windows.read`` as tensors."""
    for start in range(0, total, batch):
        first = start
        for part in windows.read(start, min(total, start + batch)):
            yield first, {key: torch.from_numpy(array) for key, array in part.items()}
            first += len(part["tokens"])


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
