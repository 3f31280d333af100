"""Submit with submitit: one job, a chain, an array of runs, or a rehearsal on this machine."""

import contextlib
import os
import shlex
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
from slurm.script import imports, interpreter, options, places, setup, write_script
from slurm.settings import Settings
from slurm.submission import Submission


def forget_surrounding_job() -> None:
    """Remove a surrounding job's variables from the environment: sbatch takes them for options."""
    for name in [n for n in os.environ if n.startswith("SLURM_") and n != "SLURM_CONF"]:
        del os.environ[name]


FOLDER = "/proc/self/cwd/submitit/%j"
"""submitit's folder, relative to the submission's directory.

submitit replaces ``%j`` and its like in the full path, so the run's own directory, which may hold
them, must not appear in it.
"""


def entry(submission: Submission) -> list[str]:
    """Command that installs our signal handlers and then runs submitit's entry point."""
    return [
        interpreter(submission.settings),
        "-u",
        "-m",
        "slurm.job.bootstrap",
        str(submission.path),
    ]


def before(submission: Submission) -> list[str]:
    """Shell lines that run before :func:`entry`."""
    # submitit would handle USR2 itself, which here requests a stop.
    own = "export SUBMITIT_PREEMPT_SIGNAL=URG"
    return [*setup(submission.settings), imports(submission), own]


def shell(submission: Submission) -> list[str]:
    """The same as one command, run by bash in the directory of submission as SLURM does."""
    place = quoting.line(["cd", str(submission.directory)])
    lines = [place, *before(submission), 'exec "$@"']
    return ["bash", "-c", "\n".join(lines), "bash", *entry(submission)]


def executor(
    submission: Submission, dependency: str | None = None, log: str = "%j"
) -> submitit.SlurmExecutor:
    """submitit's executor, whose script is that of :mod:`slurm.script` but for the last line.

    It must be used with the submission's directory as the current one.

    Args:
        log: name of the job's log file.
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
        # By submitit's own names, or an option would be set twice; it quotes as for a shell.
        additional_parameters={
            key if key == "open-mode" else key.replace("-", "_"): quoting.escaped(value)
            if isinstance(value, str)
            else value
            for key, value in chosen.items()
        },
    )
    return made


def submit(submission: Submission) -> list[str]:
    """Submit a run as one job or as a chain of jobs; returns their ids."""
    records, number = submission.records, submission.number
    write_script(submission)
    records.update_state(state="submitted", reason="", submission=number, count_from=0, excluded=[])
    ids: list[str] = []
    for place in range(submission.chain):
        after = f"afterany:{ids[-1]}" if ids else None
        ids += _submit([submission], dependency=after)
        kind = "chain" if place else "first"
        records.add_job(ids[-1], number, kind, log=str(submission.log(ids[-1])))
    return ids


def submit_array(members: Sequence[Submission]) -> list[str]:
    """Submit the runs of a sweep as one array; returns their ids in order."""
    for member in members:
        write_script(member)
        number = member.number
        member.records.update_state(state="submitted", reason="", submission=number, count_from=0)
    jobs = _submit(members, log="%A_%a" if len(members) > 1 else "%j")
    for member, job in zip(members, jobs, strict=True):
        member.records.add_job(job, member.number, "first", log=str(members[0].log(job)))
    return jobs


def _submit(members: Sequence[Submission], **how: Any) -> list[str]:
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
    """GPUs of this machine for a rehearsal: as many as are asked of a node, or none.

    submitit hides all others.
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
    """Start the same job on this machine; returns submitit's job without waiting for it."""
    settings = submission.settings
    limit, visible = seconds(settings.time), visible_gpus(settings)
    records = submission.records
    records.update_state(state="submitted", reason="", submission=submission.number, count_from=0)
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


def log_of(records: Records) -> Path | None:
    """Log file of the newest job's supervisor."""
    rows = [row for row in records.jobs() if row.get("log")]
    return Path(rows[-1]["log"]) if rows else None
