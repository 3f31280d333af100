"""Requests to stop: signals are noted at once and obeyed between two steps.

This module imports nothing slow, and ``python -m pretrain`` installs the handlers in its
first lines: a signal that arrives while PyTorch is being imported is not lost. What came
even before that is not lost either where the launcher has blocked it for us. SIGTERM,
SIGINT, SIGUSR1 and SIGUSR2 ask the run to finish its step, save and leave; a second
SIGINT leaves at once. Saves are atomic, so even that breaks nothing.
"""

import os
import signal
from types import FrameType

STOPPED = 75
"""Exit status of a run that stopped on request and can be resumed (EX_TEMPFAIL)."""

INTERRUPTED = 130
"""Exit status after a second SIGINT, as a shell reports it."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

_received: list[int] = []


def _note(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _received:
        os._exit(INTERRUPTED)
    _received.append(number)


def install() -> None:
    """Note signals from here on, forgetting earlier ones."""
    _received.clear()
    for number in SIGNALS:
        signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def ignore() -> None:
    """At the end of a process: one more request must not end it by the signal's default."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def restore() -> None:
    """Give signals back their ordinary meaning: Ctrl-C raises KeyboardInterrupt."""
    _received.clear()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def received() -> list[int]:
    """The signals noted so far, oldest first."""
    return list(_received)


def reason() -> str | None:
    """The first request to stop, by name, or None."""
    return signal.Signals(_received[0]).name if _received else None
