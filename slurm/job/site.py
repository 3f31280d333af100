"""Where a supervisor runs: in a job of SLURM's, or in a rehearsal on one machine.

Both know their nodes and how to start ranks there, how to begin the job again, and what is
to become of a job that is being ended.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from slurm import controller
from slurm.controller import RefusedError, UnreachableError
from slurm.hosts import expand
from slurm.job.ranks import Local, Ranks, Srun
from slurm.job.task import job_name, restarts
from slurm.records import Start
from slurm.submission import Submission

REHEARSED_AGAIN = 144
"""Exit status by which submitit's local executor starts a job again."""

Fate = Literal[
    "running", "grace", "requeued", "preempted", "lost", "time limit", "cancelled", "unknown"
]
"""What SLURM is about to do with a job."""


class Site(Protocol):
    """See the module docstring."""

    job: str
    restart: int
    nodes: list[str]

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """Start the ranks on so many of the nodes."""

    def requeue(self, exclude: Collection[str]) -> str | None:
        """Begin the job again; the reason where it is refused."""

    def exclude(self, job: str, nodes: Collection[str]) -> None:
        """Keep a job that waits off some nodes."""

    def succeed(self, exclude: Collection[str]) -> str:
        """Submit another job that goes on after this one; its id."""

    def fate(self) -> Fate:
        """What becomes of this job."""


class InJob:
    """The batch process of a job."""

    def __init__(self, submission: Submission, environ: Mapping[str, str]) -> None:
        self._submission, self._environ = submission, environ
        self.job, self.restart = job_name(environ), restarts(environ)
        self.nodes = expand(environ.get("SLURM_JOB_NODELIST") or environ["SLURM_NODELIST"])

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """Through srun."""
        return Srun(self._submission.settings, start, words, nodes, self._environ)

    def requeue(self, exclude: Collection[str]) -> str | None:
        """``scontrol requeue``; nodes can be excluded once the job is pending again."""
        if not self._submission.settings.requeue:
            return "requeue is false"
        try:
            controller.patiently("scontrol", "requeue", self.job)
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

    def succeed(self, exclude: Collection[str]) -> str:
        """``sbatch`` of the script that the submission keeps, to start after this job's end."""
        return submit_script(self._submission, exclude, after=self.job)

    def fate(self) -> Fate:
        """As the controller tells it; the job's state itself is COMPLETING in all cases."""
        try:
            job = controller.finished_job(self.job)
        except UnreachableError:
            job = None
        return "unknown" if job is None else fate_of(job, self.restart)


def fate_of(job: controller.Job, restart: int) -> Fate:
    """What becomes of a job, in its ``restart``-th start, that was told to end.

    A requeue counts at once, before the job's processes have ended; a preemption is noted
    when the grace begins; what remains is a time limit, or somebody's scancel.
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
    """These nodes and those that the settings exclude: SLURM keeps one list, not two."""
    return ",".join(name for name in (submission.settings.exclude, *nodes) if name)


def submit_script(
    submission: Submission, exclude: Collection[str] = (), after: str | None = None
) -> str:
    """Submit the script that a submission keeps; the job's id."""
    words = ["--parsable"]
    excluded = exclusions(submission, exclude)
    if excluded:
        words.append(f"--exclude={excluded}")
    if after:
        words.append(f"--dependency=afterany:{after}")
    answer = controller.patiently("sbatch", *words, str(submission.script))
    return answer.strip().split(";")[0]


@dataclass
class Rehearsal:
    """A pretended job of one node here, under submitit's local executor."""

    submission: Submission
    environ: Mapping[str, str]
    leave: Callable[[int], None]

    def __post_init__(self) -> None:
        self.job = f"local-{self.environ['SUBMITIT_LOCAL_JOB_ID']}"
        mine = [s for s in self.submission.records.starts() if s.facts.get("job") == self.job]
        self.restart = len(mine)
        self.nodes = ["here"] * self.submission.settings.nodes

    def start(self, start: Start, words: Sequence[str], nodes: int) -> Ranks:
        """All ranks of all nodes, on this machine."""
        variables = {
            "SLURM_JOB_ID": self.job,
            "SLURM_RESTART_COUNT": str(self.restart),
        }
        settings = self.submission.settings
        return Local(settings, start, words, nodes, {**self.environ, **variables})

    def requeue(self, exclude: Collection[str]) -> str | None:
        """By an exit status that submitit's controller knows."""
        self.leave(REHEARSED_AGAIN)
        return None

    def exclude(self, job: str, nodes: Collection[str]) -> None:
        """There is one machine."""

    def succeed(self, exclude: Collection[str]) -> str:
        """There is nobody to submit to."""
        raise RefusedError("a rehearsal has no successors")

    def fate(self) -> Fate:
        """Whoever ends a rehearsal means it."""
        return "cancelled"
