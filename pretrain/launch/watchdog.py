"""A watch over one rank: when it stands still, it says where.

In a collective every rank waits for the slowest, so one rank's stall stalls all; each then
prints its own stacks, and the one that is not waiting for the others is the culprit. Where a
launcher would start the run again, the rank then leaves.

Some work has no beat within it, and no bound that a step's length would tell: reading a
checkpoint, building the engine, a file system that takes minutes to flush. While it is named
(:meth:`Watchdog.during`) the watch has more patience.
"""

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Self

HUNG = 70
"""Exit status of a rank that its watchdog ended (EX_SOFTWARE)."""


PATIENCE_S = 1800.0
"""Seconds that work without a beat may take; a collective gives up on a lost rank sooner."""


class Watchdog:
    """Prints the stacks of all threads after ``seconds`` without a :meth:`beat`; 0 is off.

    It prints once for each stall, and leaves the process to go on or to time out; or ends it,
    with status 70, if it is to ``leave``.
    """

    def __init__(self, rank: int, seconds: float, *, leave: bool = False) -> None:
        self._rank, self._seconds, self._leave = rank, seconds, leave
        self._last_beat = time.monotonic()
        self._doing = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """There is progress."""
        self._last_beat = time.monotonic()

    @contextlib.contextmanager
    def during(self, doing: str, when: bool = True) -> Iterator[None]:
        """Work that has no beat within it, but one before and one after it.

        Args:
            doing: what a report calls it. when: otherwise it is work like any other.
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
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()

    def _watch(self) -> None:
        reported = 0.0
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            beat = self._last_beat
            if beat != reported and time.monotonic() - beat > self._limit():
                reported = beat
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
