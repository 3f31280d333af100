"""Kneser-Ney against its formulas with dictionaries, against nltk, and as a distribution."""

from collections import Counter
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.lm import KneserNeyInterpolated

from tools.evaluate.kneser_ney import UNDEFINED, KneserNey, estimated, fit

V, N, START = 5, 4, 5
RANDOM = np.random.default_rng(0)
TEXTS = [
    # Rare and common tokens: all of n1 to n4 occur at every order.
    RANDOM.choice(V, p=[0.4, 0.3, 0.15, 0.1, 0.05], size=size)
    for size in (60, 1, 25, 40)
]
Gram = tuple[int, ...]


def grams(texts: list[np.ndarray], length: int) -> Counter[Gram]:
    """Occurrences of the n-grams that end at a token."""
    found: Counter[Gram] = Counter()
    for text in texts:
        padded = (START,) * N + tuple(text.tolist())
        found.update(padded[end - length : end] for end in range(N + 1, len(padded) + 1))
    return found


class Plain:
    """The formulas of the module's docstring, read word by word."""

    def __init__(self, texts: list[np.ndarray]) -> None:
        self.counts = {N: grams(texts, N)}
        for length in range(1, N):
            self.counts[length] = Counter(gram[1:] for gram in grams(texts, length + 1))
        self.discounts = {length: self._estimated(length) for length in self.counts}

    def _estimated(self, length: int) -> list[float]:
        n = Counter(self.counts[length].values())
        if length == 1:  # five tokens have too few counts
            return [0.0, *UNDEFINED]
        y = n[1] / (n[1] + 2 * n[2])
        found = [r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3)]
        return [0.0, *found]

    def p(self, word: int, context: Gram) -> float:
        length = len(context) + 1
        after = {w: self.counts[length][(*context, w)] for w in range(V)}
        total = sum(after.values())
        lower = self.p(word, context[1:]) if context else 1 / V
        if not total:
            return lower
        taken = {w: self.discounts[length][min(3, count)] for w, count in after.items()}
        return (after[word] - taken[word] + sum(taken.values()) * lower) / total


@cache
def fitted() -> KneserNey:
    return fit(TEXTS, order=N, vocab_size=V)


def p_after(model: KneserNey, context: Gram) -> np.ndarray:
    return np.array(
        [model.probabilities(np.array([*context, word]))[-1] for word in range(model.vocab_size)]
    )


CONTEXTS = [context for length in range(N) for context in product(range(V), repeat=length)]


def test_probabilities_are_those_of_the_formula() -> None:
    plain = Plain(TEXTS)
    assert [order.discounts for order in fitted().orders] == [
        pytest.approx(plain.discounts[length][1:]) for length in range(1, N + 1)
    ]
    for context in CONTEXTS:
        wanted = [plain.p(word, context) for word in range(V)]
        assert p_after(fitted(), context) == pytest.approx(wanted, rel=1e-12), context


def test_they_sum_to_one_after_every_context() -> None:
    for context in CONTEXTS:
        p = p_after(fitted(), context)
        assert p.sum() == pytest.approx(1.0, rel=1e-12)
        assert (p > 0).all()


@given(
    texts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=3),
    context=st.lists(st.integers(0, 3), max_size=4),
    order=st.integers(1, 4),
)
def test_any_corpus_gives_distributions(
    texts: list[list[int]], context: list[int], order: int
) -> None:
    """Of few n-grams the discounts have no estimate; a long context counts by its end alone."""
    model = fit(map(np.array, texts), order=order, vocab_size=4)
    p = p_after(model, tuple(context))
    assert p.sum() == pytest.approx(1.0, rel=1e-12)
    assert (p > 0).all()
    assert p == pytest.approx(p_after(model, tuple(context[-(order - 1) :] if order > 1 else ())))


def test_nltk_agrees_where_it_has_one_discount_and_a_plain_unigram() -> None:
    d = 0.1
    model = fit(TEXTS, order=3, vocab_size=V, discounts=((0.0,) * 3, (d,) * 3, (d,) * 3))
    theirs = KneserNeyInterpolated(order=3, discount=d)
    names = "abcde^"
    sentences = [
        [
            tuple(names[token] for token in padded[end - length : end])
            for end in range(3, len(padded) + 1)
            for length in (1, 2, 3)
        ]
        for padded in ([START, START, *text.tolist()] for text in TEXTS)
    ]
    theirs.fit(sentences, vocabulary_text=list(names))
    for context in [c for c in CONTEXTS if len(c) < 3]:
        wanted = [theirs.score(names[word], [names[t] for t in context]) for word in range(V)]
        assert p_after(model, context) == pytest.approx(wanted, rel=1e-12), context


def test_a_text_is_scored_as_its_tokens_are_one_by_one() -> None:
    text = TEXTS[0][7:20]
    plain = Plain(TEXTS)
    wanted = [
        plain.p(int(text[i]), tuple(text[max(0, i - N + 1) : i].tolist())) for i in range(len(text))
    ]
    assert fitted().probabilities(text) == pytest.approx(wanted, rel=1e-12)
    assert fitted().probabilities(np.array([], dtype=np.int64)).shape == (0,)


def test_n_grams_that_occurred_are_seen() -> None:
    assert fitted().seen(TEXTS[0]).tolist() == [True] * (len(TEXTS[0]) - N + 1)
    model = fit([np.array([0, 1, 2]), np.array([1, 2, 3])], order=3, vocab_size=4)
    assert model.seen(np.array([0, 1, 2, 3])).tolist() == [True, True]
    assert model.seen(np.array([2, 1, 2, 3])).tolist() == [False, True]
    assert model.seen(np.array([0, 1])).tolist() == []


def test_discounts_of_too_few_counts_are_set() -> None:
    assert estimated(np.array([7, 8, 9])) == UNDEFINED
    assert estimated(np.array([1, 2, 3, *[4] * 9])) == UNDEFINED  # D3 would be negative
    assert estimated(np.array([1] * 6 + [2] * 3 + [3] * 2 + [4])) == pytest.approx((0.5, 1.0, 2.0))
