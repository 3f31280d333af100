"""``python -m slurm cancel`` and ``requeue``: stop a run's jobs, or start them again."""

import argparse
from pathlib import Path

from configs.errors import UserError
from slurm import controller
from slurm import submission as submissions
from slurm.controller import Job, RefusedError
from slurm.job.allocation import exclusions, submit_script
from slurm.node_list import expand
from slurm.records import Records
from slurm.script import STOP_SIGNAL


def cancel(arguments: argparse.Namespace) -> int:
    """Cancel all jobs of a run, later ones of a chain too; a running one saves first."""
    records, live = _live(arguments.run)
    records.update_state(state="cancelled", reason="by python -m slurm cancel")
    if not live:
        print(f"{arguments.run} has no job; nothing to cancel")
        if records.jobs()[-1]["kind"] == "local" and records.state.get("pid"):
            print(f"a rehearsal ends by: kill -TERM {records.state['pid']}")
        return 0
    controller.call_with_retries("scancel", *(job.id for job in live))
    print(f"cancelled {arguments.run}: job {', '.join(job.id for job in live)}")
    return 0


def requeue(arguments: argparse.Namespace) -> int:
    """Save and restart a running job, or submit a job for a run without one."""
    records, live = _live(arguments.run)
    number = records.newest_submission()
    submission = submissions.load(records.submission(number))
    if any(job.state == "COMPLETING" for job in live):
        raise UserError(f"job {live[0].id} is ending still; try again in a moment")
    excluded = _excluded(records.state.get("excluded", []), arguments.exclude)
    starts = records.starts()
    records.update_state(excluded=excluded, count_from=starts[-1].number if starts else 0)
    running = [job for job in live if job.state == "RUNNING"]
    if running:
        # The supervisor saves, and then requeues the job with these nodes excluded.
        controller.call("scancel", f"--signal={STOP_SIGNAL}", "--batch", running[0].id)
        print(f"job {running[0].id} saves, leaves and is requeued")
    elif live:
        _release(live[0], exclusions(submission, excluded) if excluded else "")
        print(f"job {live[0].id} waits already: {live[0].reason or live[0].state}")
    else:
        records.update_state(state="submitted", reason="", submission=number)
        job = submit_script(submission, excluded)
        records.add_job(job, number, "requeue", log=str(submission.log(job)))
        print(f"submitted  {arguments.run}: job {job}")
    return 0


def _excluded(before: list[str], text: str) -> list[str]:
    """The excluded nodes and those of ``--exclude``; ``none`` clears the list.

    Raises:
        UserError: there is no node of that name.
    """
    if text == "none":
        return []
    named = expand(text) if text else []
    for node in named:
        try:
            controller.call("scontrol", "show", "node", node)
        except RefusedError as error:
            raise UserError(f"--exclude {text}: there is no node {node}") from error
    return [*before, *(node for node in named if node not in before)]


def _release(job: Job, excluded: str) -> None:
    """Update the exclusions of a pending job, and release it if it is held."""
    if excluded:
        controller.call("scontrol", "update", f"JobId={job.id}", f"ExcNodeList={excluded}")
    if "held" in job.reason.lower():
        controller.call("scontrol", "release", job.id)


def _live(run: Path) -> tuple[Records, list[Job]]:
    """A run's records, and its jobs that are not over, oldest first."""
    records = Records(run)
    ids = [row["job"] for row in records.jobs()]
    if not ids:
        raise UserError(f"{run} holds no run of a job's; name a run directory")
    try:
        known = controller.jobs([number for number in ids if not number.startswith("local-")])
    except RefusedError as error:
        raise UserError(str(error)) from error
    return records, [job for job in known.values() if job is not None and not job.over]
