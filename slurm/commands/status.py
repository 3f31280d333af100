"""``python -m slurm status`` and ``logs``: state and output of runs and their jobs."""

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.json_files import read_json
from configs.run_files import DIED, RUNNING, evidence_of_end
from slurm import controller, quoting
from slurm.commands import preflight, sweep
from slurm.controller import Job, RefusedError, UnreachableError
from slurm.durations import readable
from slurm.executor import log_of
from slurm.records import Records

FOLLOW_S = 1.0
ENDED = ("done", "failed", "cancelled", "stopped")
"""States that a supervisor records for a run that no job continues."""


def status(arguments: argparse.Namespace) -> int:
    """Print a line for each job of each run: state, step, loss, and what it waits for."""
    rows: list[dict[str, Any]] = []
    for path in arguments.runs or [Path("runs")]:
        runs = _runs(path)
        if not runs:
            raise UserError(f"{path} holds no run of a job's; name a run directory")
        for run in runs:
            rows += _rows(run)
    print(table(rows))
    states = {str(row["run"]): str(row["state"]) for row in rows}
    for root in arguments.runs:
        found = sweep.results(root, states)
        if found:
            print(f"\n{table(found)}")
    return 0


def _runs(path: Path) -> list[Path]:
    """Runs in a directory: itself, the members of its sweep, or all below it."""
    if Records(path).jobs():
        return [path]
    found = sorted(file.parent.parent for file in path.glob("**/slurm/jobs.jsonl"))
    return sweep.members(path) or found


def _rows(run: Path) -> list[dict[str, Any]]:
    """One row for each job of a run that is not over, or else for its last job."""
    records = Records(run)
    ids = [row["job"] for row in records.jobs()]
    known: dict[str, Job | None] = {}
    away = ""
    try:
        asked = [number for number in ids if not _local(number)]
        known = controller.jobs(asked) if asked else {}
    except (UnreachableError, RefusedError, UserError) as error:
        away = str(error)
    live = [number for number in ids if (job := known.get(number)) and not job.over]
    facts = summary(records)
    rows = []
    for number in live or ids[-1:]:
        job = known.get(number)
        state, reason = state_of(job, facts["state"], away=bool(away)), facts["reason"]
        if job and not job.over:
            own = records.status
            reason = job.reason or reason or (own["reason"] if own.get("state") == DIED else "")
        elif job is None and (found := _gone(records, facts["state"], away=bool(away))):
            state, reason = found
        reason = reason or (job.reason if job else "" if state in ENDED else away)
        row = {"run": str(run), "job": number, **facts, "state": state, "reason": reason}
        rows.append(row if number in live or away else {**row, "left": ""})
    return rows


def _local(number: str) -> bool:
    """Whether a job is a rehearsal, which SLURM does not know."""
    return number.startswith("local-")


def _gone(records: Records, noted: str, *, away: bool) -> tuple[str, str] | None:
    """State and reason of a run that has died though its records call it live; None if it may live.

    SLURM does not know its last job. The run's own files count first: a controller that has just
    restarted may have forgotten a job whose ranks still run.
    """
    own, last = records.status, records.jobs()[-1]
    if noted in ENDED:
        return None
    if own.get("state") == DIED and noted == RUNNING:
        return DIED, str(own["reason"])
    if own.get("state") == RUNNING or preflight.alive(records):
        return None
    if _local(last["job"]):
        ended = evidence_of_end(last.get("process"))
        return (DIED, f"its rehearsal: {ended}") if ended else None
    if away:
        return None
    if noted == RUNNING and own.get("state") in ENDED:
        return str(own["state"]), str(own.get("reason", ""))
    return DIED, f"SLURM does not know job {last['job']} any more"


def state_of(job: Job | None, noted: str, *, away: bool = False) -> str:
    """A run's state: SLURM's while its job lives, afterwards the one its supervisor recorded.

    A supervisor that died with its node recorded nothing: then SLURM's state holds.
    """
    if job is None:
        return f"{noted} ?" if away and noted not in ENDED else noted
    if job.over and noted in ENDED:
        return noted
    return job.state.lower()


def summary(records: Records) -> dict[str, Any]:
    """Columns from a run's own files: step, loss, throughput, time left, restarts."""
    row = records.last_row()
    submitted = read_json(records.submission(records.newest_submission()) / "job.json")
    step, last = row.get("step", 0), submitted.get("steps", 0)
    throughput = row.get("perf/tokens_per_second")
    left = None
    if step and throughput and step < last:
        left = (last - step) * row["tokens_seen"] / step / throughput
    state = records.state
    return {
        "state": state.get("state", ""),
        "step": f"{step}/{last}" if last else str(step),
        "saved": records.saved_step(),
        "loss": row.get("loss"),
        "tokens/s": throughput,
        "left": readable(left) if left is not None else "",
        "restarts": max(0, len(records.starts()) - 1),
        "reason": state.get("reason", ""),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows of the same keys as a table with a header."""
    head = list(rows[0]) if rows else []
    cells = [head, *([_cell(row.get(key)) for key in head] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


# -- logs ---------------------------------------------------------------------------------


def logs(arguments: argparse.Namespace) -> int:
    """Print the end of a log, and with ``--follow`` what is added to it."""
    records = Records(arguments.run)
    if not records.jobs():
        raise UserError(f"{arguments.run} holds no run of a job's; name a run directory")
    shown: Path | None = None
    offset = 0
    try:
        while True:
            file = log(records, arguments.rank)
            if file != shown and file is not None and file.exists():
                shown = file
                offset = _show_end(file, arguments.lines if offset == 0 else 0)
            elif shown is not None:
                offset = _show_from(shown, offset)
            if not arguments.follow:
                if shown is None:
                    run = quoting.word(str(arguments.run))
                    print(f"nothing is printed yet; see: python -m slurm status {run}")
                return 0
            time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        return 0


def log(records: Records, rank: int) -> Path | None:
    """The newest log of a rank, or of the supervisor (rank -1)."""
    starts = records.starts()
    if rank < 0 or not starts:
        return log_of(records)
    return starts[-1].log(rank)


def _show_end(file: Path, lines: int) -> int:
    print(f"==> {file}", flush=True)
    text = file.read_text(encoding="utf-8", errors="replace")
    _print(text.splitlines(keepends=True)[-lines:] if lines else [text])
    return file.stat().st_size


def _show_from(file: Path, offset: int) -> int:
    with file.open("rb") as stream:
        stream.seek(offset)
        added = stream.read()
    _print([added.decode("utf-8", errors="replace")])
    return offset + len(added)


def _print(parts: Iterable[str]) -> None:
    for part in parts:
        print(part, end="", flush=True)
