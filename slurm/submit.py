"""Submission, by submitit: one job, a chain of them, an array of runs, or a rehearsal here."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from configs.errors import RunError
from slurm.durations import seconds
from slurm.records import Records
from slurm.script import imports, options, script, setup
from slurm.settings import Settings
from slurm.submission import Submission
from slurm.supervisor import Supervise


def forget_surrounding_job() -> None:
    """Whoever submits from inside a job must not hand its variables on: sbatch obeys them."""
    for name in [n for n in os.environ if n.startswith("SLURM_") and n != "SLURM_CONF"]:
        del os.environ[name]


def python(settings: Settings) -> str:
    """The interpreter of the job."""
    return settings.python or sys.executable


def executor(submission: Submission, dependency: str | None = None) -> submitit.SlurmExecutor:
    """submitit's executor, set up so that its script is ours in all but the last line."""
    settings = submission.settings
    made = submitit.SlurmExecutor(
        submission.path / "submitit" / "%j",
        python=f"exec {shlex.quote(python(settings))} -u -m slurm.first",
    )
    chosen = options(settings, submission.name)
    del chosen["job-name"]
    if dependency:
        chosen["dependency"] = dependency
    made.update_parameters(
        job_name=submission.name,
        use_srun=False,
        stderr_to_stdout=True,
        wckey=None,
        array_parallelism=settings.max_parallel,
        # submitit would take the signal that asks for a stop for its own.
        setup=[*setup(settings), imports(submission), "export SUBMITIT_PREEMPT_SIGNAL=URG"],
        # By submitit's own names, lest an option stand twice.
        additional_parameters={
            key if key == "open-mode" else key.replace("-", "_"): value
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
        job = _try(executor(submission, after), [submission])[0]
        ids.append(str(job.job_id))
        records.add_job(ids[-1], number, "chain" if place else "first", log=str(job.paths.stdout))
    return ids


def submit_array(members: Sequence[Submission]) -> list[str]:
    """Submit the runs of a sweep as one array; their ids, in order."""
    for member in members:
        write_script(member)
        number = member.number
        member.records.note(state="submitted", reason="", submission=number, count_from=0)
    jobs = _try(executor(members[0]), members)
    for member, job in zip(members, jobs, strict=True):
        log = str(job.paths.stdout)
        member.records.add_job(str(job.job_id), member.number, "first", log=log)
    return [str(job.job_id) for job in jobs]


def _try(made: Any, members: Sequence[Submission]) -> list[Any]:
    try:
        return list(made.submit_array([Supervise(member.path) for member in members]))
    except submitit.core.utils.FailedJobError as error:
        raise RunError(f"sbatch refused: {' '.join(str(error).split())}") from error


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
    made = submitit.LocalExecutor(
        submission.path / "submitit" / "%j", python=shlex.quote(python(settings))
    )
    limit, visible = seconds(settings.time), visible_gpus(settings)
    made.update_parameters(
        timeout_min=max(1.0, (limit or 86400 * 365) / 60),
        signal_delay_s=settings.stop_ahead_s,
        gpus_per_node=len(visible),
        visible_gpus=visible,
        stderr_to_stdout=True,
        setup=[*setup(settings)[1:], imports(submission)],
    )
    records = submission.records
    records.note(state="submitted", reason="", submission=submission.number, count_from=0)
    job = made.submit(Supervise(submission.path))
    name = f"local-{job.job_id}"
    records.add_job(name, submission.number, "local", log=str(job.paths.stdout))
    return job


def write_script(submission: Submission) -> None:
    """The script with which a submission can be started again."""
    text = script(submission, python(submission.settings))
    submission.script.write_text(text, encoding="utf-8")


def log_of(records: Records) -> Path | None:
    """What the supervisor of the newest job has printed."""
    rows = [row for row in records.jobs() if row.get("log")]
    return Path(rows[-1]["log"]) if rows else None
