"""The numbers of a held-out bound: what it is a bound on, in several units, and its baseline.

The documents' own tokens and their EOS are counted; what else frames a window is given, unless the
windows say otherwise (:mod:`pretrain.evaluation.conventions`). Of documents that are padded
(:class:`model.objectives.Scope`) either the length is coded too, or it is given: then so is the
EOS, and neither is counted. How many windows a document fills that is cut is given in both cases.

Perplexity and bits per byte or character are increasing functions of the nats per token, so that
the ends of their intervals are those of the nats' interval, mapped.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.shards import Split
from model.objectives import Scope
from pretrain.evaluation.bound import Tally
from pretrain.evaluation.interval import Interval

WITH_ENDS = "-log p(texts, their ends included)"
CUT = f"{WITH_ENDS}, given how many windows each fills"
GIVEN_LENGTH = "-log p(text given its length)"
"""Descriptions of the quantity that is bounded."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Other units of a bound in nats per counted token.

    Args:
        tokens_per_byte: counted tokens per byte of the text.
        tokens_per_character: per code point; None where their number is not recorded.
    """

    tokens_per_byte: float
    tokens_per_character: float | None

    def of(self, nelbo: float) -> dict[str, float | None]:
        """``perplexity``, ``bits_per_byte`` and ``bits_per_character``, each increasing."""
        bits, per_character = nelbo / math.log(2), self.tokens_per_character
        with np.errstate(over="ignore"):
            perplexity = float(np.exp(nelbo))
        return {
            "perplexity": perplexity,
            "bits_per_byte": bits * self.tokens_per_byte,
            "bits_per_character": None if per_character is None else bits * per_character,
        }


def units(tally: Tally, split: Split) -> Units:
    """The units of a bound on a split, as if all of its tokens were scored."""
    _, counted, of_stream = tally.documents_D3.sum(dim=0).tolist()
    tokens, manifest = split.num_tokens * counted / of_stream, split.manifest
    characters = manifest.characters
    return Units(
        tokens_per_byte=tokens / manifest.bytes,
        tokens_per_character=None if characters is None else tokens / characters,
    )


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
        ``nelbo`` in nats per counted token, the units of :class:`Units`, ``unigram`` of the same
        tokens, which knows that none is EOS where EOS is given, ``ratio`` = nelbo / unigram, both
        None where the frame is counted, which no unigram knows; ``bound_on`` what, with
        ``exact``, ``length_given`` and ``padding`` (:class:`model.objectives.Scope`); the counted
        ``tokens`` and how many of them are EOS of documents (``eos_counted``), BOS and EOS around
        windows (``frame_counted``) or padding (``padding_counted``, none ever); the ``documents``,
        and how many of them are padded and yet cut (``documents_cut``).
    """
    documents = tally.documents_D3[tally.documents_D3[:, 1] > 0].numpy()
    nats, tokens, _ = documents.T
    nelbo = float(nats.sum() / tokens.sum())
    counts, frame = tally.ids_R.numpy(), int(tally.frame)
    eos = valid.manifest.eos_id
    absent = eos if scope.length_given and not counts[eos] else None
    unigram = None if frame else unigram_nats(train.counts(), counts, absent)
    cut = int((tally.windows_D > 1).sum())
    with_ends = CUT if cut else WITH_ENDS
    return {
        "nelbo": nelbo,
        **units(tally, valid).of(nelbo),
        "unigram": unigram,
        "ratio": None if unigram is None else nelbo / unigram,
        "bound_on": GIVEN_LENGTH if scope.length_given else with_ends,
        "exact": scope.exact,
        "length_given": scope.length_given,
        "padding": scope.padding,
        "documents": len(documents),
        "documents_cut": cut,
        "tokens": int(counts.sum()) + frame,
        "eos_counted": int(counts[eos]),
        "frame_counted": frame,
        "padding_counted": 0,
    }


def with_intervals(summary: dict[str, Any], interval: Interval, units: Units) -> dict[str, Any]:
    """The summary with ``NAME_ci95`` behind ``nelbo`` and behind each of its other units."""
    ends = [{"nelbo": end, **units.of(end)} for end in interval.bounds or ()]
    found: dict[str, Any] = {}
    for name, value in summary.items():
        found[name] = value
        if name == "nelbo" or name in units.of(0.0):
            known = ends and value is not None
            found[f"{name}_ci95"] = tuple(end[name] for end in ends) if known else None
        if name == "nelbo":
            found["interval"] = interval.told
    return found
