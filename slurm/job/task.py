"""``python -m slurm.job.task START``: the parent of one rank, on whatever node srun put it.

It reads rank and place from SLURM's variables, finds the others, and starts ``python -m
pretrain`` with torchrun's variables. It holds signals that come while its rank is not ready
for them, passes them on, says that its node lives, ends its rank once a newer start has
begun, and leaves an account of the rank's end. A rank that stopped in good order is no
failure to srun, which would end the others: the meaning is in the account.
"""

from slurm.job import signals

if __name__ == "__main__":
    signals.note()

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.exit_codes import STOPPED, SUPERSEDED
from configs.json_files import read_json, write_json
from slurm.hosts import expand, free_port
from slurm.records import Start

POLL_S = 0.25
BEAT_S = 2.0
MEETING_S = 600.0
ORDERLY = (0, STOPPED)
"""Exit statuses of a rank that srun must not take for a failure."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a task stands among the ranks."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    job: str
    restart: int
    first_host: str


def place(environ: Mapping[str, str]) -> Place:
    """A task's place, from the variables of its step; those of the job where a step has none.

    Raises:
        ValueError: this is no task of SLURM's.
    """

    def first(*names: str) -> str:
        for name in names:
            if environ.get(name):
                return environ[name]
        raise ValueError(f"{names[0]} is not set: slurm.job.task is started by srun")

    nodes = first("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    node = int(first("SLURM_NODEID"))
    return Place(
        rank=int(first("SLURM_PROCID")),
        size=int(first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")),
        local_rank=int(first("SLURM_LOCALID")),
        local_size=_per_node(first("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))[node],
        node=node,
        job=job_name(environ),
        restart=restarts(environ),
        first_host=expand(nodes)[0],
    )


def _per_node(text: str) -> list[int]:
    """``2(x2),1`` as 2, 2, 1."""
    sizes = []
    for part in text.split(","):
        size, _, times = part.rstrip(")").partition("(x")
        sizes += [int(size)] * int(times or 1)
    return sizes


def job_name(environ: Mapping[str, str]) -> str:
    """The job's name for scontrol: of an array's member not its own id, which changes."""
    array = environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}" if array else environ["SLURM_JOB_ID"]


def restarts(environ: Mapping[str, str]) -> int:
    """Starts of the job before this one; the variable is unset in the first."""
    return int(environ.get("SLURM_RESTART_COUNT", "0"))


def torchrun_variables(here: Place, address: str, port: int) -> dict[str, str]:
    """What pretrain reads."""
    return {
        "RANK": str(here.rank),
        "WORLD_SIZE": str(here.size),
        "LOCAL_RANK": str(here.local_rank),
        "LOCAL_WORLD_SIZE": str(here.local_size),
        "GROUP_RANK": str(here.node),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def meet(here: Place, start: Start) -> tuple[str, int]:
    """Address and port of the rendezvous: the first rank chooses, the others read.

    Raises:
        TimeoutError: the first rank has chosen none.
    """
    if here.rank == 0:
        port = free_port(here.job, here.restart, start.number)
        write_json(start.meeting, {"address": here.first_host, "port": port})
        return here.first_host, port
    end = time.monotonic() + MEETING_S
    while time.monotonic() < end and not start.superseded:
        found = read_json(start.meeting)
        if found:
            return str(found["address"]), int(found["port"])
        time.sleep(POLL_S)
    raise TimeoutError(f"rank 0 has chosen no place to meet within {MEETING_S:.0f} s")


class Task:
    """One rank's process, and the watch over it."""

    def __init__(self, here: Place, start: Start, command: Sequence[str]) -> None:
        self._here, self._start = here, start
        self._command = command
        self._passed: list[int] = []
        self._beaten = 0.0

    def run(self, environ: Mapping[str, str]) -> int:
        """Until the rank has ended; returns the status for srun."""
        address, port = meet(self._here, self._start)
        variables = torchrun_variables(self._here, address, port)
        # Where nothing binds tasks to cores, a rank sees those of its neighbours too.
        variables["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS") or environ.get(
            "SLURM_CPUS_PER_TASK", "1"
        )
        child = subprocess.Popen(
            self._command, env={**environ, **variables}, preexec_fn=signals.hold
        )
        code = self._watch(child)
        account = {
            "code": code,
            "signals": [signal.Signals(number).name for number in self._passed],
            "host": socket.gethostname(),
        }
        write_json(self._start.exit(self._here.rank), account)
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
            self._pass_on(child)

    def _beat(self) -> None:
        """Say that this node lives; one of its tasks does."""
        now = time.monotonic()
        if self._here.local_rank or now - self._beaten < BEAT_S:
            return
        self._beaten = now
        with contextlib.suppress(OSError):
            beat = {"time": time.time(), "host": socket.gethostname()}
            self._start.beat(self._here.node).write_text(json.dumps(beat), encoding="utf-8")

    def _pass_on(self, child: "subprocess.Popen[bytes]") -> None:
        """Signals, each kind once, and a request that came as a file."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            number = int(signal.Signals[self._start.stop.read_text(encoding="utf-8").strip()])
            if number not in signals.received:
                signals.received.append(number)
        for number in signals.distinct():
            if number not in self._passed:
                self._passed.append(number)
                # The rank may have had this one itself, and a second SIGINT is no request to save.
                child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)
        if signals.received.count(signal.SIGINT) > 1:
            child.kill()


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one rank of a start: ``START CONFIG [key=value ...]``."""
    path, *words = argv
    command = [sys.executable, "-u", "-m", "pretrain", *words]
    start = Start(Path(path))
    if start.superseded:
        return SUPERSEDED
    return Task(place(environ), start, command).run(environ)


if __name__ == "__main__":
    status = main(sys.argv[1:], os.environ)
    signals.ignore()
    sys.exit(status)
