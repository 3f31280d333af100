"""The judge that needs no other model: n-grams of the training split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.shards import Split
from tools.evaluate.judges import Text, of_tokenizer
from tools.evaluate.kneser_ney import KneserNey, fit

ORDER = 5
MOST_TOKENS = 5_000_000
"""Tokens that are counted; of a longer split this many, in blocks from all over it."""

BLOCKS = 100


@dataclass(frozen=True, kw_only=True)
class NgramJudge:
    """Interpolated Kneser-Ney over the run's own tokens.

    Args:
        model: fitted to the training split.
        tokens: how many of its tokens were counted, ``of`` how many.
        start: the id before the first token of a text; None where a text may begin anywhere.
    """

    model: KneserNey
    tokens: int
    of: int
    start: int | None

    @property
    def facts(self) -> dict[str, Any]:
        """See :class:`tools.evaluate.judges.Judge`."""
        return {
            "judge": f"{len(self.model.orders)}-grams, modified Kneser-Ney, of the training split",
            "judge_tokenizer": of_tokenizer(same=True),
            "judge_tokens_counted": self.tokens,
            "judge_tokens_of_split": self.of,
        }

    def nats(self, texts: Sequence[Text]) -> np.ndarray:
        """See :class:`tools.evaluate.judges.Judge`."""
        before = [] if self.start is None else [self.start]
        rows = []
        for one in texts:
            ids = np.array([*before, *one.ids], dtype=np.int64)
            p = self.model.probabilities(ids)[len(before) :]
            rows.append((-np.log(p).sum(), len(p)))
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    def copied(self, texts: Sequence[Text]) -> float | None:
        """Share of the texts' n-grams of the highest order that were counted in training."""
        seen = [self.model.seen(np.array(one.ids, dtype=np.int64)) for one in texts]
        total = sum(map(len, seen))
        return float(sum(one.sum() for one in seen) / total) if total else None


def ngram_judge(
    train: Split, vocab_size: int, *, start: int | None, order: int = ORDER
) -> NgramJudge:
    """Fit n-grams up to an order to the training split, or to :data:`MOST_TOKENS` of it."""
    blocks = list(_blocks(train.num_tokens))
    return NgramJudge(
        model=fit((train.tokens(*block) for block in blocks), order=order, vocab_size=vocab_size),
        tokens=sum(stop - first for first, stop in blocks),
        of=train.num_tokens,
        start=start,
    )


def _blocks(total: int) -> Iterator[tuple[int, int]]:
    """The split as a whole, or blocks at even distances."""
    if total <= MOST_TOKENS:
        yield 0, total
        return
    size = MOST_TOKENS // BLOCKS
    for number in range(BLOCKS):
        first = number * (total - size) // (BLOCKS - 1)
        yield first, first + size
