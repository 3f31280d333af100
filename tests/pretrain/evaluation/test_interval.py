"""The interval holds the true value as often as it says, on skewed losses and uneven lengths."""

from collections.abc import Callable

import numpy as np
import pytest

from pretrain.evaluation.interval import LEAST, ratio_interval
from pretrain.evaluation.of_checkpoint import by_document

Draw = Callable[[np.random.Generator, int], np.ndarray]


def geometric(random: np.random.Generator, num: int) -> np.ndarray:
    """Lengths of a geometric distribution, gamma losses a token."""
    length = random.geometric(1 / 50, num).astype(float)
    return np.stack([length * (2 + random.gamma(1.0, 1.0, num)), length], axis=1)


def uniform(random: np.random.Generator, num: int) -> np.ndarray:
    """Even lengths, losses that are surer of longer texts."""
    length = random.integers(1, 31, num).astype(float)
    loss = 3 + 3 * (random.standard_exponential(num) - 1) / np.sqrt(length)
    return np.stack([length * np.maximum(loss, 0.01), length], axis=1)


def longer_is_easier(random: np.random.Generator, num: int) -> np.ndarray:
    """Log-normal lengths and losses, which depend on each other."""
    z = 0.7 * random.normal(size=num)
    length = np.ceil(np.exp(4 + z))
    return np.stack([length * np.exp(1 - 0.3 * z + 0.3 * random.normal(size=num)), length], 1)


def with_chance(random: np.random.Generator, num: int) -> np.ndarray:
    """As many corruptions as four, whose chance is as large as that of the documents."""
    parts = uniform(random, num)
    chance = random.gamma(1.0, 1.0, (num, 4)).mean(axis=1)
    return np.stack([parts[:, 0] * chance, parts[:, 1]], axis=1)


def truth(draw: Draw) -> float:
    nats, tokens = draw(np.random.default_rng(99), 1_000_000).sum(axis=0)
    return float(nats / tokens)


def holds(draw: Draw, num: int, times: int) -> int:
    """How many of so many intervals hold the true value."""
    random, true, held = np.random.default_rng(num), truth(draw), 0
    for seed in range(times):
        bounds = ratio_interval(draw(random, num), seed=seed).bounds
        assert bounds is not None
        held += bounds[0] <= true <= bounds[1]
    return held


@pytest.mark.parametrize(
    ("draw", "num"), [(geometric, 30), (uniform, 10), (longer_is_easier, 30), (with_chance, 10)]
)
def test_the_interval_covers(draw: Draw, num: int) -> None:
    """Within three standard deviations of a binomial, 190 of 200."""
    assert 181 <= holds(draw, num, 200) <= 199


SMALL = [
    (draw, num)
    for draw in (geometric, uniform, longer_is_easier, with_chance)
    for num in (10, 12, 15, 20, 30, 60)
]


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "num"), [*SMALL, (with_chance, 300), (geometric, 1500)])
def test_the_interval_covers_at_every_size(draw: Draw, num: int) -> None:
    """Within about three standard deviations of 95%; large samples take long, and vary little."""
    times, least, most = (1000, 925, 985) if num <= 60 else (200, 181, 199)
    assert least <= holds(draw, num, times) <= most


@pytest.mark.parametrize("num", [1, 5, LEAST - 1])
def test_few_documents_have_no_interval(num: int) -> None:
    found = ratio_interval(uniform(np.random.default_rng(0), num), seed=0)
    assert found.bounds is None
    assert found.told == f"none: {num} documents, and it takes 10"


def test_paragraphs_of_one_document_are_one_of_the_sample() -> None:
    """Spans of 12 texts, 30 of each and all alike: as wide as 12 texts make it."""
    parts = uniform(np.random.default_rng(0), 12)
    of, samples = np.repeat(np.arange(12) * 5, 30), np.repeat(parts / 30, 30, axis=0)
    mixed = np.random.default_rng(1).permutation(len(of))
    documents = by_document(samples[mixed], of[mixed])
    np.testing.assert_allclose(documents, parts)
    alone, together = (ratio_interval(p, seed=0).bounds for p in (samples, documents))
    assert alone is not None
    assert together is not None
    assert together[1] - together[0] > 4 * (alone[1] - alone[0])


def test_it_says_what_it_is_over() -> None:
    parts = uniform(np.random.default_rng(0), 12)
    found = ratio_interval(parts, seed=0, of="held-out samples")
    assert found.told == "95%, bootstrap-t over 12 held-out samples"
    assert found == ratio_interval(parts, seed=0, of="held-out samples")
    assert found != ratio_interval(parts, seed=1, of="held-out samples")


def test_documents_that_are_alike() -> None:
    parts = np.array([[4.0, 2.0]] * 12)
    assert ratio_interval(parts, seed=0).bounds == (2.0, 2.0)
    assert ratio_interval(0 * parts + [0.0, 3.0], seed=0).bounds == (0.0, 0.0)
    parts[3, 0] = 9.0
    found = ratio_interval(parts, seed=0)
    assert found.bounds is None
    assert "differ in too few" in found.told


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("num", [12, 2000])
def test_losses_that_are_not_finite_are_called_so(bad: float, num: int) -> None:
    parts = uniform(np.random.default_rng(0), num)
    parts[3, 0] = bad
    found = ratio_interval(parts, seed=0)
    assert found.bounds is None
    assert found.told == f"none: losses among the {num} documents are not finite"


def test_many_documents_are_taken_in_groups() -> None:
    parts = uniform(np.random.default_rng(0), 50_000)
    low, high = ratio_interval(parts, seed=0).bounds or (0, 0)
    ratio = parts[:, 0].sum() / parts[:, 1].sum()
    error = float(np.sqrt(np.square(parts[:, 0] - ratio * parts[:, 1]).sum()) / parts[:, 1].sum())
    assert (ratio - low) / error == pytest.approx(1.96, rel=0.15)
    assert (high - ratio) / error == pytest.approx(1.96, rel=0.15)
