"""Signals before a process can note them, and after it has anything to lose."""

import os
import signal
import subprocess
import sys
import time

import pytest

NOTES = "from pretrain.launch import preemption; preemption.install(); print(preemption.reason())"
DEAF = """
import os, signal
from pretrain.launch import preemption
preemption.install()
preemption.ignore()
os.kill(os.getpid(), signal.SIGUSR2)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_what_a_launcher_has_held_is_noted(number: signal.Signals) -> None:
    def held() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        os.kill(os.getpid(), number)

    done = subprocess.run(
        [sys.executable, "-c", NOTES], preexec_fn=held, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == number.name


def test_a_late_request_does_not_end_a_process_that_is_done() -> None:
    subprocess.run([sys.executable, "-c", DEAF], check=True)


def test_two_terminations_and_a_continuation_are_one_request() -> None:
    source = "from pretrain.launch import preemption as p; import time\n"
    source += "p.install(); print(flush=True)\n"
    source += "while len(p.received()) < 2: time.sleep(0.01)\nprint(p.reason(), flush=True)"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGTERM):
            process.send_signal(number)
            time.sleep(0.1)
        assert process.stdout.readline() == b"SIGTERM\n"
        assert process.wait(10) == 0
