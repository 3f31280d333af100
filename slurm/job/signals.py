"""Signals of a task, or of a supervisor, noted from its first lines on."""

import os
import signal
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Those that ask to stop."""

received: list[int] = []
"""What came, oldest first. Of a stop several may come: two SIGTERMs, with a SIGCONT between."""


def _note(number: int, _frame: FrameType | None) -> None:
    received.append(number)


def note() -> None:
    """Note signals from here on."""
    for number in STOP:
        signal.signal(number, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


def hold() -> None:
    """In a process that is about to become another program: let signals wait for that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def hand_on() -> None:
    """Before this process becomes another program: that one gets what came, and what comes."""
    hold()
    for number in distinct():
        os.kill(os.getpid(), number)


def ignore() -> None:
    """At the end: a late one must not make a failure of it."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


def distinct() -> list[int]:
    """Each kind that came, once."""
    return list(dict.fromkeys(received))


def names() -> set[str]:
    """The kinds as people write them."""
    return {signal.Signals(number).name for number in received}


def ending() -> bool:
    """Whether SLURM, or somebody, is ending this job."""
    return signal.SIGTERM in received or signal.SIGINT in received
