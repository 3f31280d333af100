"""Calls of SLURM's commands: states of jobs, requeue, cancel, partitions.

States come from squeue, then from ``scontrol show job`` (which remembers ended jobs for
minutes), then from sacct where accounting is set up. A job that is COMPLETING or REQUEUED has not
ended; a controller that does not answer means nothing; a job that none of them knows is unknown.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from configs.errors import RunError, UserError

CALL_S = 40.0
"""Seconds after which a command counts as unanswered: it blocks for 9 s while the controller is
away, and may take longer while the controller is busy."""

ENDS = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    ]
)
"""States of a job that is over; all other states lead to one of them."""

_AWAY = re.compile(
    r"contact slurm controller|socket timed out|connection refused|zero bytes|standby mode", re.I
)
_UNSET = re.compile(r"configuration (source|file)", re.I)
_FORMAT = "%i|%T|%r|%N"
_NAMED = re.compile(r"JobName=.*? (?=UserId=[^ ]*\(\d+\))")
_FIELDS = re.compile(r"(?:^|\s)([A-Z][A-Za-z/:]*)=(\S*)")


class UnreachableError(RunError):
    """The controller does not answer; the state of jobs is unknown."""


class MissingError(UserError):
    """SLURM is not on this machine, or has no configuration here."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: run this on a login node of the cluster, or rehearse it here with --local"
        )


class RefusedError(RunError):
    """SLURM refused a request; the message is SLURM's own, in one line."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What SLURM knows of a job.

    Args:
        state: as SLURM names it. reason: why it waits, or how it ended.
        restarts: starts after the first; None where the source does not report it.
        preempted: SLURM chose it to make room for another job, and it has not started again.
    """

    id: str
    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int | None = None
    preempted: bool = False
    source: str = "squeue"

    @property
    def over(self) -> bool:
        """Whether it has ended and will not start again."""
        return self.state in ENDS


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment without a surrounding job's variables, which sbatch would take for options."""
    return {k: v for k, v in environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}


def call(*command: str, environ: Mapping[str, str] | None = None) -> str:
    """Run a command of SLURM's; returns its output.

    Raises:
        UnreachableError: the controller does not answer. RefusedError: SLURM refuses. MissingError:
            there is no such command, or no configuration.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=CALL_S,
            check=False,
            env=clean(os.environ if environ is None else environ),
        )
    except FileNotFoundError as error:
        raise MissingError(f"there is no {command[0]} here") from error
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"{command[0]} has had no answer for {CALL_S:.0f} s") from error
    if done.returncode:
        text = " ".join((done.stderr or done.stdout).split())
        if _UNSET.search(text):
            raise MissingError(f"SLURM has no configuration here ({command[0]})")
        raise (UnreachableError if _AWAY.search(text) else RefusedError)(
            text or f"{command[0]} failed"
        )
    return done.stdout


def call_with_retries(*command: str, seconds: float = 300.0) -> str:
    """The same, retried for ``seconds`` while the controller does not answer."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call(*command)
        except UnreachableError:
            if time.monotonic() > end:
                raise
            time.sleep(2)


# -- jobs ---------------------------------------------------------------------------------


def jobs(ids: Sequence[str]) -> dict[str, Job | None]:
    """State of each of these jobs; None for a job that SLURM does not know.

    Raises:
        UnreachableError: the controller does not answer.
    """
    queue = {job.id: job for job in _queue()}
    return {number: queue.get(number) or finished_job(number) for number in ids}


def _queue() -> Iterator[Job]:
    """The user's jobs that are not over; members of arrays are listed one by one."""
    for line in call("squeue", "--noheader", "--array", "--me", "-o", _FORMAT).splitlines():
        number, state, reason, nodes = line.split("|", 3)
        yield Job(id=number, state=state, reason="" if reason == "None" else reason, nodes=nodes)


def finished_job(number: str) -> Job | None:
    """A job's state from ``scontrol show job``, or else from accounting."""
    try:
        return shown(call("scontrol", "show", "job", "-o", number), number)
    except RefusedError:
        return _accounted(number)


def shown(text: str, number: str) -> Job:
    """Parse one line of ``scontrol show job -o``."""
    line = _NAMED.sub("", text.splitlines()[0], count=1)
    # Fields that hold a user's text, such as paths and the comment, come last.
    facts = dict(reversed(_FIELDS.findall(line)))
    reason = facts.get("Reason", "None")
    return Job(
        id=number,
        state=facts["JobState"],
        reason="" if reason == "None" else reason,
        nodes=facts.get("NodeList", "").replace("(null)", ""),
        restarts=int(facts["Restarts"]),
        preempted=facts.get("PreemptTime", "None") != "None",
        source="scontrol",
    )


def _accounted(number: str) -> Job | None:
    """A job's state from sacct; None without accounting."""
    columns = "JobID,State,NodeList"
    try:
        text = call("sacct", "-X", "-n", "--parsable2", "-o", columns, "-j", number)
    except (RefusedError, UserError):
        return None
    return accounted(text, number)


def accounted(text: str, number: str) -> Job | None:
    """Parse sacct's output: the last line about a job."""
    found = None
    for line in text.splitlines():
        name, state, nodes = line.split("|", 2)
        if name == number and state:
            # "CANCELLED by 1000"
            word, _, reason = state.partition(" ")
            found = Job(id=number, state=word, reason=reason, nodes=nodes, source="sacct")
    return found


# -- partitions ---------------------------------------------------------------------------


def partitions(names: str | None) -> list[dict[str, str]]:
    """Attributes of partitions, named as for sbatch; by default of the default partition.

    Raises:
        UserError: there is no partition of that name; the message lists those that exist.
    """
    lines = call("scontrol", "--all", "show", "partition", "-o").splitlines()
    known = {facts["PartitionName"]: facts for facts in (dict(_FIELDS.findall(x)) for x in lines)}
    if names is None:
        return [facts for facts in known.values() if facts.get("Default") == "YES"]
    for name in names.split(","):
        if name not in known:
            raise UserError(f"there is no partition '{name}'; choose one of {', '.join(known)}")
    return [known[name] for name in names.split(",")]
