"""How many corruptions: a fixed number of each window, or as many as a narrow interval takes.

The documents' own differences make the most of the interval of a held-out bound, and no further
corruption narrows them. What corruptions add is told apart: given the documents, rounds of one
corruption of each window are independent, and their numbers alike in distribution. So the mean of R
of them has the 95% interval of Student's t with R - 1 degrees of freedom. Rounds are added until
its half-width is as small as asked for (Chow & Robbins 1965); as stopping favours rounds that agree
by chance, it takes :data:`LEAST` of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from pretrain.evaluation.bound import Tally

LEAST = 8
"""Rounds that an estimate of their spread takes at least."""

QUANTILES = (12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691)
"""0.975 quantiles of Student's t with 1 to 6 degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """When there are corruptions enough.

    Args:
        half_width: of the 95% interval of the corruptions' chance, in nats per token.
        most: corruptions of each window at most, :data:`LEAST` or more.
    """

    half_width: float
    most: int


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The corruptions that were drawn.

    Args:
        tally: of all of them.
        samples: of each window.
        half_width: of the 95% interval that their chance adds, in nats per token; None where it
            is not estimated.
    """

    tally: Tally
    samples: int
    half_width: float | None


def enough(
    target: Target, one: Callable[[int], Tally], first: int, expect: Callable[[int], None]
) -> Rounds:
    """Draw rounds until the target is reached, or the most of them is.

    Args:
        one: the tally of a round, by its number.
        first: rounds before the spread is first looked at; no fewer than :data:`LEAST`.
        expect: called with the number of rounds that will be needed, whenever that changes.
    """
    tally, nelbos = one(0), list[float]()
    goal = min(max(LEAST, first), target.most)
    nelbos.append(_nelbo(tally))
    while True:
        expect(goal)
        for number in range(len(nelbos), goal):
            found = one(number)
            nelbos.append(_nelbo(found))
            tally = tally.with_samples(found)
        width = half_width(nelbos)
        over = not math.isfinite(width) or width <= target.half_width
        if over or len(nelbos) >= target.most:
            return Rounds(tally=tally, samples=len(nelbos), half_width=width)
        needed = math.ceil(len(nelbos) * (width / target.half_width) ** 2)
        goal = min(max(needed, goal + 1), 2 * goal, target.most)


def _nelbo(tally: Tally) -> float:
    nats, counted, _ = tally.documents_D3.sum(dim=0).tolist()
    return float(nats / counted)


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of the mean of independent values; NaN unless finite.

    Student's t: from a table below seven degrees of freedom; from there on by the expansion of its
    quantile in 1 / degrees (Abramowitz & Stegun 1964, 26.7.5), which is right to 0.001.
    """
    if not all(map(math.isfinite, values)):
        return math.nan
    return _quantile(len(values) - 1) * stdev(values, fmean(values)) / math.sqrt(len(values))


def _quantile(free: int) -> float:
    if free <= len(QUANTILES):
        return QUANTILES[free - 1]
    z = NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
