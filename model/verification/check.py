"""Checks: comparisons of computed numbers with known ones, and their verdicts."""

import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

LOG_PROB = 1e-6
"""Tolerance of identities through log-probabilities, which are computed in float32."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The deviation of a computed number from its known value.

    Args:
        what: name of the quantity ("loss", "-log p of 31 sequences").
        deviation: relative if ``allowed`` is above 0; else the number of items that differ.
        allowed: tolerance; 0 requires equality.
        figures: the numbers compared, as text, for debugging.
    """

    what: str
    deviation: float
    allowed: float = 0.0
    figures: str = ""

    @property
    def holds(self) -> bool:
        """Whether the deviation is within the tolerance; NaN is not."""
        return self.deviation <= self.allowed

    @property
    def strain(self) -> float:
        """Deviation as a share of the tolerance; infinite if the comparison does not hold."""
        if not self.holds:
            return math.inf
        return self.deviation / self.allowed if self.allowed else 0.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """A named function that makes comparisons; it may raise if they cannot be made."""

    name: str
    compare: Callable[[], list[Comparison]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a check.

    Args:
        error: the reason if there are no comparisons.
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
        """The comparison with the largest :attr:`Comparison.strain`."""
        return max(self.comparisons, key=lambda one: one.strain, default=None)


def judge(check: Check, expected: tuple[type[Exception], ...] = ()) -> Verdict:
    """Run a check; it fails if it raises or if a comparison does not hold.

    Args:
        expected: exceptions of which only the message is kept; for others the traceback is.
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
    """Compare a number with the known one by their relative difference."""
    return Comparison(
        what=what,
        deviation=abs(found / known - 1),
        allowed=allowed,
        figures=f"{found:.10g} in place of {known:.10g}",
    )


def relative(what: str, found: Tensor, truth: Tensor, measure: Tensor | None = None) -> Comparison:
    """Compare numbers derived from log-probabilities with the true ones, to :data:`LOG_PROB`.

    Args:
        measure: denominator of the relative deviations; by default ``truth``.
    """
    apart = ((found - truth) / (truth if measure is None else measure)).abs()
    worst = int(apart.argmax())
    return Comparison(
        what=what,
        deviation=float(apart.max()),
        allowed=LOG_PROB,
        figures=f"{float(found[worst]):.9g} in place of {float(truth[worst]):.9g}",
    )
