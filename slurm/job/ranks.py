"""The tasks of one start, launched by srun on the cluster or by subprocess in a rehearsal.

Both launch the same ``slurm.job.task`` with the same variables, so that a rehearsal runs what
the cluster will run.
"""

import os
import shlex
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from slurm import quoting
from slurm.records import Start
from slurm.settings import Settings

CPUS = "--cpus-per-task"


class Ranks(ABC):
    """The tasks of one start.

    Args:
        settings, start: shape and files of the ranks.
        arguments: the words of pretrain.
        nodes: how many to use.
        environ: environment variables of the tasks.
    """

    def __init__(
        self,
        settings: Settings,
        start: Start,
        arguments: Sequence[str],
        nodes: int,
        environ: Mapping[str, str],
    ) -> None:
        self.settings, self.start = settings, start
        self.nodes, self.size = nodes, nodes * settings.per_node
        python = settings.python or sys.executable
        self.command = [python, "-u", "-m", "slurm.job.task", str(start.path), *arguments]
        self.environ = dict(environ)
        self.launch()

    @abstractmethod
    def launch(self) -> None:
        """Start ``size`` tasks, each of which runs ``command``."""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit status of all tasks together; None while one lives."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal that requests a stop to all tasks."""

    @abstractmethod
    def kill(self) -> None:
        """Kill all tasks."""


class Srun(Ranks):
    """One task for each rank on every node of the allocation, started by srun."""

    def launch(self) -> None:
        """Start srun, whose own output goes to ``srun.log``."""
        settings = self.settings
        command = [
            "srun",
            f"--nodes={self.nodes}",
            f"--ntasks={self.size}",
            f"--ntasks-per-node={settings.per_node}",
            f"{CPUS}={settings.cpus_per_rank}",
            *([f"--gpus-per-node={settings.gpus_per_node}"] if settings.gpus_per_node else []),
            "--kill-on-bad-exit=1",
            "--export=ALL",
            "--mpi=none",
            f"--output={quoting.pattern(str(self.start.path))}/rank-%5t.log",
            *settings.srun_options,
            *shlex.split(settings.container or ""),
            *self.command,
        ]
        with self.start.srun_log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self.environ,
            )

    def poll(self) -> int | None:
        """srun's own exit status: the highest of all tasks."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Through srun, which passes user signals on, but would kill all tasks at a SIGTERM."""
        if number in (signal.SIGUSR1, signal.SIGUSR2) and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Terminate srun, which kills its tasks."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Local(Ranks):
    """All ranks on this machine, as the tasks of one node, for a rehearsal."""

    def launch(self) -> None:
        """Start the tasks with the variables that srun would set."""
        self._processes = []
        for rank in range(self.size):
            variables = {
                "SLURM_PROCID": rank,
                "SLURM_LOCALID": rank,
                "SLURM_NODEID": 0,
                "SLURM_STEP_NUM_TASKS": self.size,
                "SLURM_STEP_TASKS_PER_NODE": self.size,
                "SLURM_STEP_NODELIST": os.uname().nodename,
            }
            with self.start.log(rank).open("ab") as stream:
                self._processes.append(
                    subprocess.Popen(
                        self.command,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=stream,
                        env={**self.environ, **{k: str(v) for k, v in variables.items()}},
                        start_new_session=True,
                    )
                )

    def poll(self) -> int | None:
        """The highest exit status; kills the others once a task has failed, as srun does."""
        codes = [process.poll() for process in self._processes]
        if any(codes) and None in codes:
            self.kill()
            return None
        ended = [code for code in codes if code is not None]
        return max(map(abs, ended)) if len(ended) == len(codes) else None

    def signal(self, number: int) -> None:
        """To each task."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """Kill each task with its rank."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
