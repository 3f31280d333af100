"""Interpolated Kneser-Ney with three discounts: an n-gram model of token ids, fitted by counting.

    p(w | c) = (N(cw) - D(N(cw)))+ / N(c.) + g(c) p(w | c'),    c' = c without its first token

N counts occurrences at the highest order, and below it the different tokens that precede an n-gram
(Kneser & Ney 1995). D is D1, D2 or D3 for counts of 1, 2 and more, from the numbers n_r of n-grams
that are counted r times (Chen & Goodman 1999, eq. 26):

    Y = n1 / (n1 + 2 n2),    D1 = 1 - 2 Y n2/n1,    D2 = 2 - 3 Y n3/n2,    D3 = 3 - 4 Y n4/n3

g(c) is the mass that the discounts leave over, and the unigram is interpolated with the uniform
distribution, so that every probability is positive. A context that never occurred is shortened.

An n-gram's number is its place in the sorted keys (number of its suffix, first token): a lookup is
a binary search for all positions of a text at once, and no tuple is hashed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

UNDEFINED = (0.5, 1.0, 1.5)
"""Discounts where too few n-grams are counted for an estimate."""

ABSENT = -1


@dataclass(frozen=True, kw_only=True)
class Order:
    """Counts of the n-grams of one length.

    Args:
        keys_G: int64, sorted: number of the suffix times V + 1, plus the first token.
        counts_G: N of each n-gram, 0 for one that is a context only.
        context_G: number of its first n - 1 tokens among the n-grams that are shorter by one.
        num_contexts: how many of those there are.
        discounts: D1, D2, D3.
    """

    keys_G: np.ndarray
    counts_G: np.ndarray
    context_G: np.ndarray
    num_contexts: int
    discounts: tuple[float, float, float]

    @cached_property
    def totals(self) -> np.ndarray:
        """N(c.) of each context: ``[C]``."""
        return np.bincount(self.context_G, self.counts_G, minlength=self.num_contexts)

    @cached_property
    def left_over(self) -> np.ndarray:
        """What the discounts take from each context's total: ``[C]``."""
        taken_G = discount(self.counts_G, self.discounts)
        return np.bincount(self.context_G, taken_G, minlength=self.num_contexts)


@dataclass(frozen=True, kw_only=True)
class KneserNey:
    """The model; :func:`fit` makes it.

    Args:
        vocab_size: V; ids are 0..V-1.
        orders: of unigrams, bigrams, ..., n-grams.
    """

    vocab_size: int
    orders: tuple[Order, ...]

    def probabilities(self, ids_L: np.ndarray) -> np.ndarray:
        """p of each token given those before it in the text: ``[L]`` float64.

        What precedes the text is not known: the first token has its unigram's probability.
        """
        assert ((ids_L >= 0) & (ids_L < self.vocab_size)).all()
        unigrams = self.orders[0]
        total = unigrams.totals[0]
        p_L = (_discounted(unigrams, ids_L) + unigrams.left_over[0] / self.vocab_size) / total
        numbers_L = ids_L
        for length, order in enumerate(self.orders[1:], 2):
            context_L = np.concatenate([[ABSENT], numbers_L[:-1]])
            numbers_L = self._numbers(order, numbers_L, ids_L, length)
            total_L = np.where(context_L == ABSENT, 0.0, order.totals[context_L])
            seen_L = total_L > 0
            interpolated_L = _discounted(order, numbers_L) + order.left_over[context_L] * p_L
            p_L = np.where(seen_L, interpolated_L / np.where(seen_L, total_L, 1.0), p_L)
        return np.asarray(p_L)

    def seen(self, ids_L: np.ndarray) -> np.ndarray:
        """Whether each n-gram of the highest order in a text occurred: bool ``[L - n + 1]``."""
        numbers_L = ids_L
        for length, order in enumerate(self.orders[1:], 2):
            numbers_L = self._numbers(order, numbers_L, ids_L, length)
        return np.asarray(numbers_L[len(self.orders) - 1 :] != ABSENT)

    def _numbers(
        self, order: Order, suffix_L: np.ndarray, ids_L: np.ndarray, length: int
    ) -> np.ndarray:
        """Number of the n-gram of a length that ends at each position; ABSENT if it never did."""
        first_L = np.concatenate([np.full(length - 1, ABSENT), ids_L])[: len(ids_L)]
        known_L = (suffix_L != ABSENT) & (first_L != ABSENT)
        key_L = suffix_L * (self.vocab_size + 1) + first_L
        place_L = np.searchsorted(order.keys_G, key_L).clip(max=len(order.keys_G) - 1)
        return np.where(known_L & (order.keys_G[place_L] == key_L), place_L, ABSENT)


def fit(
    sequences: Iterable[np.ndarray],
    *,
    order: int,
    vocab_size: int,
    discounts: tuple[tuple[float, float, float], ...] | None = None,
) -> KneserNey:
    """Count the n-grams of some sequences of ids 0..V-1; none crosses from one to the next.

    Each sequence is preceded by start symbols, which make the first tokens' left context one of
    its own; they are never predicted.

    Args:
        order: n, the longest n-grams.
        discounts: of each order from 1 on, instead of their estimates.
    """
    start = vocab_size
    before = np.full(order, start, dtype=np.int64)
    parts = [part for sequence in sequences for part in (before, sequence)]
    stream_T = np.concatenate(parts) if parts else before
    text_T = stream_T != start
    assert text_T.any(), "no tokens to count"
    numbers_T, keys = stream_T, [np.arange(vocab_size + 1, dtype=np.int64)]
    numbers = [numbers_T]
    for length in range(2, order + 1):
        # The stream begins with start symbols: what is before them is one, too.
        first_T = np.concatenate([before[: length - 1], stream_T[: 1 - length]])
        keys_G, numbers_T = np.unique(numbers_T * (vocab_size + 1) + first_T, return_inverse=True)
        keys.append(keys_G)
        numbers.append(numbers_T)
    made = []
    for length in range(1, order + 1):
        own_T, num = numbers[length - 1], len(keys[length - 1])
        if length == order:
            counts_G = np.bincount(own_T[text_T], minlength=num)
        else:
            longer = np.unique(numbers[length][text_T])
            counts_G = np.bincount(keys[length][longer] // (vocab_size + 1), minlength=num)
        context_G = np.zeros(num, dtype=np.int64)
        if length > 1:
            context_G[own_T[1:]] = numbers[length - 2][:-1]
        made.append(
            Order(
                keys_G=keys[length - 1],
                counts_G=counts_G,
                context_G=context_G,
                num_contexts=len(keys[length - 2]) if length > 1 else 1,
                discounts=discounts[length - 1] if discounts else estimated(counts_G),
            )
        )
    return KneserNey(vocab_size=vocab_size, orders=tuple(made))


def estimated(counts_G: np.ndarray) -> tuple[float, float, float]:
    """Chen & Goodman's D1, D2, D3; :data:`UNDEFINED` where they are none, or not in [0, r]."""
    n1, n2, n3, n4 = (int((counts_G == r).sum()) for r in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return UNDEFINED
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= d <= r for r, d in enumerate(found, 1)) else UNDEFINED


def discount(counts: np.ndarray, discounts: tuple[float, float, float]) -> np.ndarray:
    """D of each count, 0 for a count of 0."""
    return np.array([0.0, *discounts])[np.minimum(counts, 3)]


def _discounted(order: Order, numbers_L: np.ndarray) -> np.ndarray:
    """(N - D)+ of the n-grams with these numbers, 0 for absent ones."""
    counts_L = np.where(numbers_L == ABSENT, 0, order.counts_G[numbers_L])
    return counts_L - discount(counts_L, order.discounts)
