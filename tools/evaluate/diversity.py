"""Diversity of texts: entropy and distinct n-grams, of words or of token ids."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence


def distinct(texts: Iterable[Sequence[object]], n: int) -> float:
    """Distinct-n: the share of n-grams that are different (Li et al. 2016), over all texts."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def entropy(tokens: Iterable[object]) -> float:
    """Entropy of the tokens' own frequencies, in nats; 0 of none.

    Its mean over samples is the entropy that stands beside the perplexity of samples in the
    literature (Zheng et al. 2024): both fall together where texts repeat themselves.
    """
    counts = Counter(tokens)
    total = counts.total()
    return math.fsum(-n / total * math.log(n / total) for n in counts.values())
