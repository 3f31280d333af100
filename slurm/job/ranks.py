"""The ranks of one start, as their supervisor holds them: through srun, or here without it.

Both start the same ``slurm.job.task`` with the same variables, so that a rehearsal runs what
the cluster will run.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from slurm import quoting
from slurm.records import Start
from slurm.settings import Settings

CPUS = "--cpus-per-task"


class Ranks(Protocol):
    """The tasks of a start."""

    def poll(self) -> int | None:
        """The status with which all have ended; None while one lives."""

    def ask(self, number: int) -> None:
        """Pass a request to stop on to all."""

    def kill(self) -> None:
        """End them now."""


def words(start: Start, python: str, arguments: Sequence[str]) -> list[str]:
    """The command of every task."""
    return [python, "-u", "-m", "slurm.job.task", str(start.path), *arguments]


class Srun:
    """One task for each rank on every node of the allocation, by srun."""

    def __init__(
        self,
        settings: Settings,
        start: Start,
        arguments: Sequence[str],
        nodes: int,
        environ: Mapping[str, str],
    ) -> None:
        command = [
            "srun",
            f"--nodes={nodes}",
            f"--ntasks={nodes * settings.per_node}",
            f"--ntasks-per-node={settings.per_node}",
            f"{CPUS}={settings.cpus_per_rank}",
            *([f"--gpus-per-node={settings.gpus_per_node}"] if settings.gpus_per_node else []),
            "--kill-on-bad-exit=1",
            "--export=ALL",
            "--mpi=none",
            f"--output={quoting.pattern(str(start.path))}/rank-%5t.log",
            *settings.srun_options,
            *shlex.split(settings.container or ""),
            *words(start, settings.python or sys.executable, arguments),
        ]
        self._said = start.path / "srun.log"
        with self._said.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=dict(environ),
            )

    def poll(self) -> int | None:
        """srun's own status: the highest of all tasks."""
        return self._process.poll()

    def ask(self, number: int) -> None:
        """By srun, which passes user signals on, but would kill all tasks at a SIGTERM."""
        if number in (signal.SIGUSR1, signal.SIGUSR2) and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the step: srun kills its tasks when it is told to terminate."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Local:
    """The tasks of one pretended node on this machine, for a rehearsal."""

    def __init__(
        self,
        settings: Settings,
        start: Start,
        arguments: Sequence[str],
        nodes: int,
        environ: Mapping[str, str],
    ) -> None:
        self._processes = []
        size = nodes * settings.per_node
        command = words(start, settings.python or sys.executable, arguments)
        for rank in range(size):
            variables = {
                "SLURM_PROCID": rank,
                "SLURM_LOCALID": rank,
                "SLURM_NODEID": 0,
                "SLURM_STEP_NUM_TASKS": size,
                "SLURM_STEP_TASKS_PER_NODE": size,
                "SLURM_STEP_NODELIST": os.uname().nodename,
            }
            with start.log(rank).open("ab") as stream:
                self._processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=stream,
                        env={**environ, **{k: str(v) for k, v in variables.items()}},
                        start_new_session=True,
                    )
                )

    def poll(self) -> int | None:
        """The highest status; the others are ended once a task has failed, as srun would."""
        codes = [process.poll() for process in self._processes]
        if any(codes) and None in codes:
            self.kill()
            return None
        ended = [code for code in codes if code is not None]
        return max(map(abs, ended)) if len(ended) == len(codes) else None

    def ask(self, number: int) -> None:
        """To each task."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """Each task, and with it its rank."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
