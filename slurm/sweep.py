"""Sweeps: a run for each combination of values, as one array of jobs, and one table."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from slurm import preflight, submission
from slurm.records import Records, read_json, write_json
from slurm.settings import Settings
from slurm.submission import Submission

Point = tuple[str, ...]
"""The words of one combination."""

TABLE = "sweep.json"


def points(axes: Sequence[str]) -> list[Point]:
    """Every combination of ``key=a,b`` words; one without words if there are none."""
    choices = []
    for axis in axes:
        key, equals, values = axis.partition("=")
        if not key or not equals or not all(values.split(",")):
            raise UserError(f"--sweep {axis}: write key=value,value")
        choices.append([f"{key}={value}" for value in values.split(",")])
    return list(itertools.product(*choices))


def dry_runs(
    settings: Settings, words: Sequence[str], combinations: Sequence[Point]
) -> list[dict[str, Any]]:
    """The dry run of every member, each in a directory of its own below the run's."""
    root = Path(preflight.dry_run(settings, words)["run_dir"])
    return [
        preflight.dry_run(settings, [*words, *point, f"run_dir={root / name(point)}"])
        for point in combinations
    ]


def name(point: Point) -> str:
    """A directory's name for a combination."""
    return ",".join(point).replace("/", "-")


def prepare(
    found: Sequence[dict[str, Any]],
    settings: Settings,
    words: Sequence[str],
    combinations: Sequence[Point],
) -> list[Submission]:
    """Submissions that share one copy of the code."""
    made: list[Submission] = []
    for point, dry_run in zip(combinations, found, strict=True):
        code = made[0].code if made else None
        made.append(submission.prepare(dry_run, settings, [*words, *point], code=code))
    return made


def note(root: Path, combinations: Sequence[Point], members: Sequence[Submission]) -> None:
    """Remember the members of a sweep, those of an earlier one with them."""
    known = read_json(root / TABLE)
    fresh = {m.run.name: list(point) for point, m in zip(combinations, members, strict=True)}
    write_json(root / TABLE, known | fresh)


def members(root: Path) -> list[Path]:
    """The runs of the sweep in a directory; none if there is no sweep."""
    return [root / run for run in read_json(root / TABLE)]


def results(root: Path) -> list[dict[str, Any]]:
    """One row for each run of a sweep: its values, where it stands, its last numbers."""
    rows = []
    for run, point in read_json(root / TABLE).items():
        records = Records(root / run)
        row, status = records.last_row(), records.status
        held_out = records.last_row("val/nelbo")
        rows.append(
            {
                **dict(word.split("=", 1) for word in point),
                "state": records.state.get("state", ""),
                "step": row.get("step", status.get("step", 0)),
                "loss": row.get("loss"),
                "val/nelbo": held_out.get("val/nelbo"),
            }
        )
    return rows
