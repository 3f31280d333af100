"""Hang watchdog: dumps the stacks of all threads when a rank makes no progress.

In a collective every rank waits for the slowest, so one rank's stall stalls all; each then
prints its own stacks, and the one that is not in a collective is the culprit. Where a
launcher would start the run again, the rank then ends.

Some work has no beat within it, and takes longer than a step: reading a checkpoint, building
the engine, a file system that takes minutes to flush. While such work is named
(:meth:`Watchdog.during`) the limit is :data:`PATIENCE_S`.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Self

from configs.exit_codes import HUNG
from pretrain.launch.periodic import Periodic

PATIENCE_S = 1800.0
"""Seconds that work without a beat may take; a collective gives up on a lost rank sooner."""


class Watchdog(Periodic):
    """Prints the stacks of all threads after ``seconds`` without a :meth:`beat`; 0 is off.

    It prints once for each stall, and leaves the process to go on or to time out; with
    ``leave`` it ends the process, with status 70.
    """

    def __init__(self, rank: int, seconds: float, *, leave: bool = False) -> None:
        super().__init__("watchdog", min(1.0, seconds / 4))
        self._rank, self._seconds, self._leave = rank, seconds, leave
        self._last_beat = time.monotonic()
        self._reported = 0.0
        self._doing = ""

    def beat(self) -> None:
        """Report progress."""
        self._last_beat = time.monotonic()

    @contextlib.contextmanager
    def during(self, doing: str, when: bool = True) -> Iterator[None]:
        """Be patient with work that has no beat within it, but one before and one after it.

        Args:
            doing: name of the work in a report.
            when: otherwise the limit stays that of a step.
        """
        before, self._doing = self._doing, doing if when else self._doing
        self.beat()
        try:
            yield
        finally:
            self.beat()
            self._doing = before

    def _limit(self) -> float:
        return max(self._seconds, PATIENCE_S) if self._doing else self._seconds

    def __enter__(self) -> Self:
        self.beat()
        return super().__enter__()

    def tick(self) -> None:
        """Print a report if the last beat is too long ago, and was not reported before."""
        beat = self._last_beat
        if beat == self._reported or time.monotonic() - beat <= self._limit():
            return
        self._reported = beat
        # One write, so that the reports of several ranks do not mingle.
        sys.stderr.write(self._report())
        sys.stderr.flush()
        if self._leave:
            os._exit(HUNG)

    def _report(self) -> str:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        doing = f" in {self._doing}" if self._doing else ""
        head = f"[rank {self._rank}] no progress{doing} for {self._limit():g} s; its stacks:\n"
        lines = [head]
        for number, frame in sys._current_frames().items():
            if number == threading.get_ident():
                continue
            lines.append(f"[rank {self._rank}] thread {names.get(number, number)}:\n")
            lines += traceback.format_stack(frame)
        return "".join(lines)
