"""Sweeps: a run for each combination of values, submitted as one job array, with a result table."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.errors import UserError
from configs.json_files import read_json, write_json
from configs.run_files import SCORES
from slurm import submission
from slurm.commands import preflight
from slurm.records import Records
from slurm.settings import Settings
from slurm.submission import Submission

Point = tuple[str, ...]
"""The ``key=value`` words of one combination."""

TABLE = "sweep.json"
MOST_BYTES = 120
"""Length limit of a member's name, a directory below the sweep's run_dir."""


def points(axes: Sequence[str]) -> list[Point]:
    """Every combination of ``key=a,b`` words; one without words if there are none."""
    choices = []
    for axis in axes:
        key, equals, text = axis.partition("=")
        if key == "run_dir":
            raise UserError(
                f"--sweep {axis}: members have directories of their own below the run_dir after --"
            )
        values = _values(text)
        if not key or not equals or not values:
            raise UserError(
                f"--sweep {axis}: write key=value,value, lists as [a,b],[c,d] and blocks as "
                "{name: a},{name: b}"
            )
        choices.append([f"{key}={value}" for value in values])
    found = list(itertools.product(*choices))
    twice = [point for point, count in Counter(found).items() if count > 1]
    if twice:
        raise UserError(f"--sweep {' '.join(twice[0])}: is there twice")
    return found


def _values(text: str) -> list[str]:
    """Split at commas outside lists, blocks and quotes; empty if the text is ambiguous.

    YAML finds the ends of the items, since it reads each value afterwards.
    """
    try:
        node = yaml.compose(f"[{text}]", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return []
    # A list may end in a comma, and text behind its bracket would be another document's.
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(text) + 2:
        return []
    if not node.value or text.rstrip().endswith(","):
        return []
    ends = [item.start_mark.index - 1 for item in node.value[1:]] + [len(text)]
    starts = [item.start_mark.index - 1 for item in node.value]
    found = [
        text[start:end].strip().removesuffix(",").rstrip()
        for start, end in zip(starts, ends, strict=True)
    ]
    # An alias stands where its anchor does.
    return found if all(found) else []


def dry_runs(
    settings: Settings, words: Sequence[str], combinations: Sequence[Point]
) -> list[dict[str, Any]]:
    """The dry run of every member, each in its own directory below the run's."""
    root = Path(preflight.dry_run(settings, words)["run_dir"])
    places = [json.dumps(str(root / name), ensure_ascii=False) for name in names(combinations)]
    return [
        preflight.dry_run(settings, [*words, *point, f"run_dir={place}"])
        for point, place in zip(combinations, places, strict=True)
    ]


def names(combinations: Sequence[Point]) -> list[str]:
    """A unique directory name for each combination."""
    found = [_name(point) for point in combinations]
    counts = Counter(found)
    return [
        f"{name}-{_digest(point)}" if counts[name] > 1 else name
        for name, point in zip(found, combinations, strict=True)
    ]


def _name(point: Point) -> str:
    """``key=value,key=value`` without letters that a shell interprets, cut at MOST_BYTES."""
    name = re.sub(r"[^\w.,=+-]+", "-", re.sub(r"[][{}'\"]", "", ",".join(point)))
    if len(name.encode()) <= MOST_BYTES:
        return name
    return f"{name.encode()[:MOST_BYTES].decode(errors='ignore')}-{_digest(point)}"


def _digest(point: Point) -> str:
    return hashlib.sha256("\n".join(point).encode(errors="surrogateescape")).hexdigest()[:8]


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


def record_members(
    root: Path, combinations: Sequence[Point], members: Sequence[Submission]
) -> None:
    """Add the members of a sweep to its table, which keeps those of an earlier one."""
    known = read_json(root / TABLE)
    fresh = {m.run.name: list(point) for point, m in zip(combinations, members, strict=True)}
    write_json(root / TABLE, known | fresh)


def members(root: Path) -> list[Path]:
    """The runs of the sweep in a directory; none if there is no sweep."""
    return [root / run for run in read_json(root / TABLE)]


def results(root: Path, states: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One row for each run of a sweep: its values, state, step, loss and held-out score.

    Args:
        states: states of runs as SLURM reports them; by default those of their records.
    """
    rows = []
    for run, point in read_json(root / TABLE).items():
        records = Records(root / run)
        row, status = records.last_row(), records.status
        name, held_out = records.score or (SCORES[0], None)
        rows.append(
            {
                **dict(word.split("=", 1) for word in point),
                "state": (states or {}).get(str(records.run)) or records.state.get("state", ""),
                "step": row.get("step", status.get("step", 0)),
                "loss": row.get("loss"),
                name: held_out,
            }
        )
    return rows
