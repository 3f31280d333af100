"""Allocations: the nodes of a SLURM job, or this machine in a rehearsal.

An allocation starts ranks on its nodes, requeues its job, submits a successor, and reports what
happens to a job that is being ended.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from slurm import controller
from slurm.controller import RefusedError, UnreachableError
from slurm.job.rank_info import job_name, restarts
from slurm.job.ranks import Local, Ranks, Srun
from slurm.node_list import expand
from slurm.records import Start
from slurm.submission import Submission

REHEARSED_AGAIN = 144
"""Exit status by which submitit's local executor starts a job again."""

Fate = Literal[
    "running", "grace", "requeued", "preempted", "lost", "time limit", "cancelled", "unknown"
]
"""What SLURM does with a job: lets it run or end its grace, requeues it, or ends it, and why."""


class Allocation(Protocol):
    """The nodes of one job, and the operations on the job; see the module docstring."""

    job: str
    restart: int
    nodes: list[str]

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """Start the ranks on the first ``nodes`` nodes; ``words`` are pretrain's."""

    def requeue(self, exclude: Collection[str]) -> str | None:
        """Requeue the job; returns the reason if that is refused."""

    def exclude(self, job: str, nodes: Collection[str]) -> None:
        """Exclude nodes from a pending job."""

    def submit_successor(self, exclude: Collection[str]) -> str:
        """Submit a job that continues the run after this one; returns its id."""

    def fate(self) -> Fate:
        """What SLURM does with this job."""


class SlurmAllocation:
    """The allocation of a SLURM job, seen from its batch process."""

    def __init__(self, submission: Submission, environ: Mapping[str, str]) -> None:
        self._submission, self._environ = submission, environ
        self.job, self.restart = job_name(environ), restarts(environ)
        self.nodes = expand(environ.get("SLURM_JOB_NODELIST") or environ["SLURM_NODELIST"])

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """Start the ranks through srun."""
        return Srun(self._submission.settings, start, words, nodes, self._environ)

    def requeue(self, exclude: Collection[str]) -> str | None:
        """By ``scontrol requeue``; nodes can be excluded once the job is pending again."""
        if not self._submission.settings.requeue:
            return "requeue is false"
        try:
            controller.call_with_retries("scontrol", "requeue", self.job)
        except (RefusedError, UnreachableError) as error:
            return str(error)
        if exclude:
            self.exclude(self.job, exclude)
        return None

    def exclude(self, job: str, nodes: Collection[str]) -> None:
        """By ``scontrol update``, for which the job must be pending again."""
        change = f"ExcNodeList={exclusions(self._submission, nodes)}"
        end, problem = time.monotonic() + 10, ""
        while time.monotonic() < end:
            try:
                controller.call("scontrol", "update", f"JobId={job}", change)
            except (RefusedError, UnreachableError) as error:
                problem = str(error)
                time.sleep(0.5)
            else:
                return
        print(f"job {job} may run on {', '.join(nodes)} again: {problem}", flush=True)

    def submit_successor(self, exclude: Collection[str]) -> str:
        """By ``sbatch`` of the script that the submission keeps, to start after this job's end."""
        return submit_script(self._submission, exclude, after=self.job)

    def fate(self) -> Fate:
        """From ``scontrol show job``; the job's state alone is COMPLETING in all cases."""
        try:
            job = controller.finished_job(self.job)
        except UnreachableError:
            job = None
        return "unknown" if job is None else fate_of(job, self.restart)


def fate_of(job: controller.Job, restart: int) -> Fate:
    """What SLURM does with a job, in its ``restart``-th start, whose processes received SIGTERM.

    SLURM counts a requeue at once, before the job's processes have ended, and records a
    preemption when its grace begins; what remains is a time limit, or a user's scancel.
    """
    if job.restarts is not None and job.restarts > restart:
        return "requeued"
    if job.state == "RUNNING":
        return "grace" if job.preempted else "running"
    if job.preempted:
        return "preempted"
    if job.state == "NODE_FAIL" or job.reason == "NodeDown":
        return "lost"
    return "time limit" if job.reason == "TimeLimit" else "cancelled"


def exclusions(submission: Submission, nodes: Collection[str]) -> str:
    """Value of ``--exclude``: these nodes and those of the settings; SLURM keeps one list."""
    return ",".join(name for name in (submission.settings.exclude, *nodes) if name)


def submit_script(
    submission: Submission, exclude: Collection[str] = (), after: str | None = None
) -> str:
    """Submit the script that a submission keeps; returns the job's id."""
    words = ["--parsable"]
    excluded = exclusions(submission, exclude)
    if excluded:
        words.append(f"--exclude={excluded}")
    if after:
        words.append(f"--dependency=afterany:{after}")
    answer = controller.call_with_retries("sbatch", *words, str(submission.script))
    return answer.strip().split(";")[0]


@dataclass
class LocalAllocation:
    """A rehearsal on this machine, under submitit's local executor."""

    submission: Submission
    environ: Mapping[str, str]
    leave: Callable[[int], None]

    def __post_init__(self) -> None:
        self.job = f"local-{self.environ['SUBMITIT_LOCAL_JOB_ID']}"
        mine = [s for s in self.submission.records.starts() if s.facts.get("job") == self.job]
        self.restart = len(mine)
        self.nodes = ["here"] * self.submission.settings.nodes

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """Start the ranks of all nodes on this machine."""
        variables = {
            "SLURM_JOB_ID": self.job,
            "SLURM_RESTART_COUNT": str(self.restart),
        }
        settings = self.submission.settings
        return Local(settings, start, words, nodes, {**self.environ, **variables})

    def requeue(self, exclude: Collection[str]) -> str | None:
        """By the exit status that makes submitit's controller start the job again."""
        self.leave(REHEARSED_AGAIN)
        return None

    def exclude(self, job: str, nodes: Collection[str]) -> None:
        """Nothing: there is one machine."""

    def submit_successor(self, exclude: Collection[str]) -> str:
        """Refused: there is no queue to submit to."""
        raise RefusedError("a rehearsal has no successors")

    def fate(self) -> Fate:
        """A rehearsal ends by its user's request only."""
        return "cancelled"
