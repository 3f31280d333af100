"""Requests to stop: signals are recorded at once and obeyed between two steps.

This module imports nothing slow, and ``python -m pretrain`` installs the handlers in its
first lines: a signal that arrives while PyTorch is being imported is not lost, and an earlier
one is not lost where the launcher blocks signals. SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2
ask the run to finish its step, save and end; a second SIGINT ends it at once, which damages
nothing, since saves are atomic.

A signal is for the run, whichever of its processes it reaches: a supervisor may signal the
launcher, its process group or all processes of a cgroup. Ranks have to agree on the step after
which they stop, so every process of a run has handlers or blocks the signals (:func:`held`).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from configs.exit_codes import INTERRUPTED

GOES_ON = "the same command goes on"
STOPPED_EARLY = f"stopped before its first step; {GOES_ON}"

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

SAME_REQUEST_S = 1.0
"""A second SIGINT within this time counts as the first: ``timeout -s INT`` signals the command and
then its group, and a launcher passes signals on that its ranks have received too."""

_received: list[int] = []
_interrupted_at: list[float] = []


def _record(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        now = time.monotonic()
        if _interrupted_at and now - _interrupted_at[0] > SAME_REQUEST_S:
            os._exit(INTERRUPTED)
        _interrupted_at.append(now)
    _received.append(number)


def install() -> None:
    """Record signals from here on, forgetting earlier ones.

    A SIGHUP that is ignored stays ignored, as ``nohup`` requires.
    """
    _received.clear()
    _interrupted_at.clear()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _record)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block the signals while child processes are started.

    Children inherit the blocked signals: none ends a child before it has installed its handlers,
    and a child that installs none ignores requests.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore the signals, at the end of a process, so that a late one does not kill it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def restore() -> None:
    """Restore the default handlers: Ctrl-C raises KeyboardInterrupt."""
    _received.clear()
    _interrupted_at.clear()
    for number in SIGNALS:
        if signal.getsignal(number) is _record:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def received() -> list[int]:
    """Signals received so far, oldest first."""
    return list(_received)


def reason() -> str | None:
    """Name of the first signal received, or None."""
    return signal.Signals(_received[0]).name if _received else None
