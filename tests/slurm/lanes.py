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
        self._ended = False
        self._results: dict[str, Future[None]] = {
            scenario.__name__: Future() for lane in lanes for scenario in lane
        }
        for lane in lanes:
            self._pool.submit(self._drive, lab, lane)

    def _drive(self, lab: Lab, lane: Sequence[Scenario]) -> None:
        for scenario in lane:
            result = self._results[scenario.__name__]
            if self._ended:
                result.cancel()
                continue
            try:
                scenario(lab)
            except BaseException as error:
                result.set_exception(error)
            else:
                result.set_result(None)

    def result(self, name: str, seconds: float) -> None:
        """Wait for a scenario, and raise what it raised."""
        self._results[name].result(seconds)

    def wait(self) -> None:
        """Until all have ended, one way or the other."""
        for result in self._results.values():
            with contextlib.suppress(BaseException):
                result.result()

    def close(self) -> None:
        """Wait for those that are under way; no further one begins."""
        self._ended = True
        self.wait()
        self._pool.shutdown()
