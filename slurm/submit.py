"""Submission, by submitit: one job, a chain of them, an array of runs, or a rehearsal here."""

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from configs.errors import RunError
from configs.run_files import process
from slurm import quoting
from slurm.durations import seconds
from slurm.job.supervisor import Supervise
from slurm.records import Records
from slurm.script import imports, options, places, script, setup
from slurm.settings import Settings
from slurm.submission import Submission


def forget_surrounding_job() -> None:
    """Whoever submits from inside a job must not hand its variables on: sbatch obeys them."""
    for name in [n for n in os.environ if n.startswith("SLURM_") and n != "SLURM_CONF"]:
        del os.environ[name]


def python(settings: Settings) -> str:
    """The interpreter of the job."""
    return settings.python or sys.executable


FOLDER = "/proc/self/cwd/submitit/%j"
"""submitit's files, named from where the submission lies.

It replaces ``%j`` and its like wherever they stand, in the run's own directory too.
"""


def entry(submission: Submission) -> list[str]:
    """What comes before submitit's own entry: an interpreter, and us."""
    return [python(submission.settings), "-u", "-m", "slurm.job.first", str(submission.path)]


def before(submission: Submission) -> list[str]:
    """The shell lines before it."""
    # submitit would take the signal that asks for a stop for its own.
    own = "export SUBMITIT_PREEMPT_SIGNAL=URG"
    return [*setup(submission.settings), imports(submission), own]


def shell(submission: Submission) -> list[str]:
    """The same without SLURM, which starts a script by bash where it was submitted."""
    place = quoting.line(["cd", str(submission.directory)])
    lines = [place, *before(submission), 'exec "$@"']
    return ["bash", "-c", "\n".join(lines), "bash", *entry(submission)]


def executor(
    submission: Submission, dependency: str | None = None, log: str = "%j"
) -> submitit.SlurmExecutor:
    """submitit's executor, set up so that its script is ours in all but the last line.

    It is used from within the submission's directory.

    Args:
        log: the name of the file for what the job prints.
    """
    settings = submission.settings
    made = submitit.SlurmExecutor(FOLDER, python=f"exec {quoting.line(entry(submission))}")
    chosen = options(settings, submission.name) | places(submission, log)
    if dependency:
        chosen["dependency"] = dependency
    made.update_parameters(
        use_srun=False,
        stderr_to_stdout=True,
        wckey=None,
        array_parallelism=settings.max_parallel,
        setup=before(submission),
        # By submitit's own names, lest an option stand twice; it quotes as for a shell.
        additional_parameters={
            key if key == "open-mode" else key.replace("-", "_"): quoting.escaped(value)
            if isinstance(value, str)
            else value
            for key, value in chosen.items()
        },
    )
    return made


def submit(submission: Submission) -> list[str]:
    """Submit a run, or a chain of jobs that carry it on in turn; their ids."""
    records, number = submission.records, submission.number
    write_script(submission)
    records.note(state="submitted", reason="", submission=number, count_from=0, excluded=[])
    ids: list[str] = []
    for place in range(submission.chain):
        after = f"afterany:{ids[-1]}" if ids else None
        ids += _try([submission], dependency=after)
        kind = "chain" if place else "first"
        records.add_job(ids[-1], number, kind, log=str(submission.log(ids[-1])))
    return ids


def submit_array(members: Sequence[Submission]) -> list[str]:
    """Submit the runs of a sweep as one array; their ids, in order."""
    for member in members:
        write_script(member)
        number = member.number
        member.records.note(state="submitted", reason="", submission=number, count_from=0)
    jobs = _try(members, log="%A_%a" if len(members) > 1 else "%j")
    for member, job in zip(members, jobs, strict=True):
        member.records.add_job(job, member.number, "first", log=str(members[0].log(job)))
    return jobs


def _try(members: Sequence[Submission], **how: Any) -> list[str]:
    with contextlib.chdir(members[0].path):
        made = executor(members[0], **how)
        try:
            jobs = made.submit_array([Supervise(member.path) for member in members])
        except submitit.core.utils.FailedJobError as error:
            raise RunError(f"sbatch refused: {' '.join(str(error).split())}") from error
        except submitit.core.utils.FailedSubmissionError as error:
            text = " ".join(str(error).split())
            raise RunError(f"sbatch named no job; look with squeue for one: {text}") from error
    return [str(job.job_id) for job in jobs]


def visible_gpus(settings: Settings) -> tuple[int, ...]:
    """Those of this machine that a rehearsal uses, as many as a node is asked for, or none.

    submitit hides all that are not named.
    """
    asked, given = settings.gpus_per_node or 0, os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        found = list(range(len(list(Path("/dev").glob("nvidia[0-9]*")))))
    else:
        found = [int(name) for name in given.split(",") if name.isdigit()]
    if asked > len(found):
        print(f"no GPUs: {asked} are asked for and {len(found)} are here; rehearsing on CPUs")
        return ()
    return tuple(found[:asked])


def rehearse(submission: Submission) -> Any:
    """Run the very same job here; submitit's job, which is not waited for."""
    settings = submission.settings
    limit, visible = seconds(settings.time), visible_gpus(settings)
    records = submission.records
    records.note(state="submitted", reason="", submission=submission.number, count_from=0)
    with contextlib.chdir(submission.path):
        made = submitit.LocalExecutor(FOLDER, python=shlex.join(shell(submission)))
        made.update_parameters(
            timeout_min=max(1.0, (limit or 86400 * 365) / 60),
            signal_delay_s=settings.stop_ahead_s,
            gpus_per_node=len(visible),
            visible_gpus=visible,
            stderr_to_stdout=True,
        )
        job = made.submit(Supervise(submission.path))
    log = submission.path / "submitit" / str(job.job_id) / f"{job.job_id}_0_log.out"
    facts = {"log": str(log), "process": process(int(job.job_id))}
    records.add_job(f"local-{job.job_id}", submission.number, "local", **facts)
    return job


def write_script(submission: Submission) -> None:
    """The script with which a submission can be started again."""
    text = script(submission, python(submission.settings))
    submission.script.write_text(text, encoding="utf-8")


def log_of(records: Records) -> Path | None:
    """What the supervisor of the newest job has printed."""
    rows = [row for row in records.jobs() if row.get("log")]
    return Path(rows[-1]["log"]) if rows else None
