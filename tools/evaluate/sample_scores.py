"""Quality and diversity of texts, which say little without each other.

A sampler that repeats itself, or copies, has a low perplexity. So beside it stand the entropy of
its tokens, the share of different n-grams and, under the n-gram judge, the share of n-grams that
were copied; and the same numbers of held-out texts, which are the ones to come near to.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from pretrain.evaluation.interval import ratio_interval
from tools.evaluate.diversity import distinct, entropy
from tools.evaluate.judges import Judge, Text
from tools.evaluate.judges.ngram import NgramJudge
from tools.text_table import aligned

Row = dict[str, Any]

COLUMNS = {
    "evaluations": "NFE",
    "perplexity": "perplexity",
    "nats_per_byte": "nats/byte",
    "entropy": "entropy",
    "entropy_of_all": "of all",
    "distinct1": "distinct-1",
    "distinct2": "-2",
    "distinct3": "-3",
    "copied": "copied",
    "mauve": "MAUVE",
}
"""Columns of the printed table, and their heads."""


def scores(texts: Sequence[Text], judge: Judge, *, seed: int) -> Row:
    """Perplexity, entropy and distinct n-grams of texts.

    Args:
        seed: of the interval's resamples.

    Returns:
        ``perplexity`` of the judge's tokens over all texts, with its 95% interval over texts (None
        of fewer than ten); ``nats_per_token``, ``nats_per_byte`` and ``nats_per_word`` (between
        blanks); ``entropy`` in nats, the mean over texts, and ``entropy_of_all`` together;
        ``distinct1`` to ``distinct3``; ``copied`` of the n-gram judge; counts. None where there is
        nothing to divide by.
    """
    nats_N2 = judge.nats(texts)
    nats, tokens = nats_N2.sum(axis=0).tolist()
    ids = [one.ids for one in texts]
    row = {
        "perplexity": math.exp(nats / tokens) if tokens else None,
        "perplexity_ci95": _interval(nats_N2, seed),
        "nats_per_token": _ratio(nats, tokens),
        "nats_per_byte": _ratio(nats, sum(len(one.text.encode("utf-8")) for one in texts)),
        "nats_per_word": _ratio(nats, sum(len(one.text.split()) for one in texts)),
        "entropy": fmean(map(entropy, ids)),
        "entropy_of_all": entropy(token for own in ids for token in own),
        **{f"distinct{n}": distinct(ids, n) for n in (1, 2, 3)},
        "texts": len(texts),
        "tokens": sum(map(len, ids)),
        "judged_tokens": int(tokens),
    }
    return row | ({"copied": judge.copied(texts)} if isinstance(judge, NgramJudge) else {})


def _interval(nats_N2: np.ndarray, seed: int) -> tuple[float, float] | None:
    bounds = ratio_interval(nats_N2[nats_N2[:, 1] > 0], seed=seed, of="texts").bounds
    return (math.exp(bounds[0]), math.exp(bounds[1])) if bounds else None


def _ratio(nats: float, of: float) -> float | None:
    return nats / of if of else None


def table(rows: Sequence[tuple[str, Row]]) -> str:
    """The rows under their names, for a terminal."""
    shown = [key for key in COLUMNS if any(row.get(key) is not None for _, row in rows)]
    cells = [[name, *(cell(row, key) for key in shown)] for name, row in rows]
    lines = [["", *(COLUMNS[key] for key in shown)], *cells]
    return "\n".join(aligned(lines, right=range(1, len(shown) + 1)))


def cell(row: Row, key: str) -> str:
    """A number of a row as it is shown."""
    value = row.get(key)
    if value is None:
        return "-"
    if key == "evaluations":
        return f"{value:,.4g}"
    return f"{value:,.1f}" if value >= 10 else f"{value:.3f}"
