"""Signal handlers of tasks and supervisors: record requests to stop from the first line on."""

import os
import signal
from types import FrameType

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that request a stop."""

received: list[int] = []
"""Signals received so far, oldest first. One stop may send several: SIGTERM, SIGCONT, SIGTERM."""


def _record(number: int, _frame: FrameType | None) -> None:
    received.append(number)


def install() -> None:
    """Record signals from here on."""
    for number in STOP:
        signal.signal(number, _record)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


def block() -> None:
    """Keep signals pending, in a process that is about to exec another program."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def send_on() -> None:
    """Before exec: keep later signals pending, and send the recorded ones once more."""
    block()
    for number in distinct():
        os.kill(os.getpid(), number)


def ignore() -> None:
    """Before the exit: a late signal must not change the exit status."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)


def distinct() -> list[int]:
    """Received signals without repetitions, oldest first."""
    return list(dict.fromkeys(received))


def names() -> set[str]:
    """Names of the received signals, such as SIGTERM."""
    return {signal.Signals(number).name for number in received}


def ending() -> bool:
    """Whether SLURM or a user is ending this job (SIGTERM, SIGINT), not asking it to restart."""
    return signal.SIGTERM in received or signal.SIGINT in received
