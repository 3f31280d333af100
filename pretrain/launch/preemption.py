"""Requests to stop: signals are noted at once and obeyed between two steps.

This module imports nothing slow, and ``python -m pretrain`` installs the handlers in its
first lines: a signal that arrives while PyTorch is being imported is not lost. What came
even before that is not lost either where the launcher has blocked it for us. SIGTERM,
SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 ask the run to finish its step, save and leave; a second
SIGINT leaves at once. Saves are atomic, so even that breaks nothing.

A signal is for the run, whichever of its processes it reaches: a supervisor may signal the
launcher, its process group or all processes of a cgroup. Only ranks that agree on a step may
act on it, so no process of a run is ever without a handler or :func:`held`.
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
"""A second SIGINT that follows within this time is the first one again: ``timeout -s INT``
signals the command and then its group, and a launcher passes on what its ranks had too."""

_received: list[int] = []
_interrupted_at: list[float] = []


def _note(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        now = time.monotonic()
        if _interrupted_at and now - _interrupted_at[0] > SAME_REQUEST_S:
            os._exit(INTERRUPTED)
        _interrupted_at.append(now)
    _received.append(number)


def install() -> None:
    """Note signals from here on, forgetting earlier ones.

    A SIGHUP that was ignored stays ignored: so ``nohup`` asks for it.
    """
    _received.clear()
    _interrupted_at.clear()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block the signals while child processes are started.

    A child inherits that: nothing ends it before it has installed its handlers, and a process
    that installs none is deaf to requests.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """At the end of a process: one more request must not end it by the signal's default."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def restore() -> None:
    """Give signals back their ordinary meaning: Ctrl-C raises KeyboardInterrupt."""
    _received.clear()
    _interrupted_at.clear()
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def received() -> list[int]:
    """The signals noted so far, oldest first."""
    return list(_received)


def reason() -> str | None:
    """The first request to stop, by name, or None."""
    return signal.Signals(_received[0]).name if _received else None
