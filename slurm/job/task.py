"""``python -m slurm.job.task START CONFIG [key=value ...]``: parent process of one rank.

srun starts it. It reads the rank from SLURM's variables, agrees with the other tasks on an
address, and starts ``python -m pretrain`` with torchrun's variables. It holds signals until
its rank is ready and passes them on, writes a heartbeat for its node, kills its rank once a
newer start has begun, and records how the rank ended. To srun a rank that stopped on request has
succeeded, since srun would kill the others after a failure: the record holds the real status.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.install()

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.exit_codes import STOPPED, SUPERSEDED
from configs.json_files import write_json
from slurm.job.rank_info import RankInfo, rank_info, torchrun_variables
from slurm.job.rendezvous import meet
from slurm.records import Start

POLL_S = 0.25
BEAT_S = 2.0
ORDERLY = (0, STOPPED)
"""Exit statuses of a rank that srun must not take for a failure."""


class Task:
    """One rank's process and its supervision."""

    def __init__(self, info: RankInfo, start: Start, command: Sequence[str]) -> None:
        self._info, self._start = info, start
        self._command = command
        self._forwarded: list[int] = []
        self._last_beat = 0.0

    def run(self, environ: Mapping[str, str]) -> int:
        """Run the rank to its end; return the exit status for srun."""
        address, port = meet(self._info, self._start)
        variables = torchrun_variables(self._info, address, port)
        # Where nothing binds tasks to cores, a rank sees the cores of its neighbours too.
        variables["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS") or environ.get(
            "SLURM_CPUS_PER_TASK", "1"
        )
        child = subprocess.Popen(
            self._command, env={**environ, **variables}, preexec_fn=signals.block
        )
        code = self._watch(child)
        record = {
            "code": code,
            "signals": [signal.Signals(number).name for number in self._forwarded],
            "host": socket.gethostname(),
        }
        write_json(self._start.exit(self._info.rank), record)
        return 0 if code in ORDERLY else code if code > 0 else 128 - code

    def _watch(self, child: "subprocess.Popen[bytes]") -> int:
        while True:
            try:
                return child.wait(POLL_S)
            except subprocess.TimeoutExpired:
                pass
            self._beat()
            if self._start.superseded:
                child.kill()
                child.wait()
                return SUPERSEDED
            self._forward_signals(child)

    def _beat(self) -> None:
        """Write the node's heartbeat, from its first task."""
        now = time.monotonic()
        if self._info.local_rank or now - self._last_beat < BEAT_S:
            return
        self._last_beat = now
        with contextlib.suppress(OSError):
            beat = {"time": time.time(), "host": socket.gethostname()}
            self._start.beat(self._info.node).write_text(json.dumps(beat), encoding="utf-8")

    def _forward_signals(self, child: "subprocess.Popen[bytes]") -> None:
        """Pass each kind of signal on once; a request may also come as a file."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            number = int(signal.Signals[self._start.stop.read_text(encoding="utf-8").strip()])
            if number not in signals.received:
                signals.received.append(number)
        for number in signals.distinct():
            if number not in self._forwarded:
                self._forwarded.append(number)
                # The rank may have had SIGINT itself; a second one ends it without a save.
                child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)
        if signals.received.count(signal.SIGINT) > 1:
            child.kill()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one rank of a start; returns the exit status."""
    path, *words = argv
    command = [sys.executable, "-u", "-m", "pretrain", *words]
    start = Start(Path(path))
    if start.superseded:
        return SUPERSEDED
    return Task(rank_info(environ), start, command).run(environ)


if __name__ == "__main__":
    status = main(sys.argv[1:], os.environ)
    signals.ignore()
    sys.exit(status)
