"""Checks: comparisons of numbers with known ones, and their verdicts."""

import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

LOG_PROB = 1e-6
"""Log-probabilities are computed in float32: no identity through them holds more closely."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The deviation of a number from what it must be.

    Args:
        what: the thing and its measure ("loss", "-log p of 31 sequences").
        deviation: relative where anything is allowed; else the number of things that differ.
        allowed: 0 asks for equality.
        figures: the numbers behind it, to find out why it deviates.
    """

    what: str
    deviation: float
    allowed: float = 0.0
    figures: str = ""

    @property
    def holds(self) -> bool:
        """Whether the deviation is allowed; that of NaN is not."""
        return self.deviation <= self.allowed

    @property
    def strain(self) -> float:
        """The share of what is allowed that is used up; infinite where it does not hold."""
        if not self.holds:
            return math.inf
        return self.deviation / self.allowed if self.allowed else 0.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """Comparisons that are made together; an exception means that they could not be made."""

    name: str
    compare: Callable[[], list[Comparison]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a check.

    Args:
        error: why there are no comparisons, if there are none.
    """

    name: str
    seconds: float
    comparisons: tuple[Comparison, ...] = ()
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether comparisons were made and all of them hold."""
        return bool(self.comparisons) and all(one.holds for one in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """The comparison nearest its bound, or beyond it."""
        return max(self.comparisons, key=lambda one: one.strain, default=None)


def judge(check: Check, expected: tuple[type[Exception], ...] = ()) -> Verdict:
    """Run a check; one that raises is as broken as one that deviates.

    Args:
        expected: errors whose message is enough; of all others the traceback is kept.
    """
    began = time.perf_counter()
    comparisons: list[Comparison] = []
    error = ""
    try:
        comparisons = check.compare()
    except expected as known:
        error = str(known)
    except Exception:
        error = traceback.format_exc()
    return Verdict(
        name=check.name,
        seconds=time.perf_counter() - began,
        comparisons=tuple(comparisons),
        error=error,
    )


def checks(method: str, *compare: Callable[[], list[Comparison]]) -> Iterator[Check]:
    """Checks of a method, each named after its function (``_held_out_bound``)."""
    for one in compare:
        name = one.__name__.strip("_").replace("_", " ")
        yield Check(name=f"{method}: {name}", compare=one)


def close(what: str, found: float, known: float, allowed: float) -> Comparison:
    """A number beside the known one, by their relative difference."""
    return Comparison(
        what=what,
        deviation=abs(found / known - 1),
        allowed=allowed,
        figures=f"{found:.10g} in place of {known:.10g}",
    )


def relative(what: str, found: Tensor, truth: Tensor, measure: Tensor | None = None) -> Comparison:
    """Numbers through log-probabilities beside the true ones.

    Args:
        measure: that deviations are a share of; by default ``truth``.
    """
    apart = ((found - truth) / (truth if measure is None else measure)).abs()
    worst = int(apart.argmax())
    return Comparison(
        what=what,
        deviation=float(apart.max()),
        allowed=LOG_PROB,
        figures=f"{float(found[worst]):.9g} in place of {float(truth[worst]):.9g}",
    )
