"""Scenarios of one lane run one after the other, lanes side by side.

A scenario mostly waits: for imports, for a controller that looks every 30 s, for a node to be
declared down. Each lane has nodes of its own, so that what happens to them is its own.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lab import Lab

Scenario = Callable[[Lab], None]


class Lanes:
    """Started scenarios, by name."""

    def __init__(self, lab: Lab, lanes: Sequence[Sequence[Scenario]]) -> None:
        self._pool = ThreadPoolExecutor(len(lanes) or 1)
        self._results: dict[str, Future[None]] = {
            scenario.__name__: Future() for lane in lanes for scenario in lane
        }
        for lane in lanes:
            self._pool.submit(self._drive, lab, lane)

    def _drive(self, lab: Lab, lane: Sequence[Scenario]) -> None:
        for scenario in lane:
            result = self._results[scenario.__name__]
            try:
                scenario(lab)
            except BaseException as error:
                result.set_exception(error)
            else:
                result.set_result(None)

    def result(self, name: str, seconds: float) -> None:
        """Wait for a scenario, and raise what it raised."""
        self._results[name].result(seconds)

    def close(self) -> None:
        """Wait for all of them."""
        for result in self._results.values():
            with contextlib.suppress(BaseException):
                result.result()
        self._pool.shutdown()
