"""``python -m tools.runs [DIR]``: state, step, loss and speed of the runs below a directory.

    python -m tools.runs                  all below runs/
    python -m tools.runs runs/lr-* --json

Works with and without SLURM: all is read from the run directories. The loss and tokens/s are
those of the last logged step, and the age is the time since something was last logged.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError, exit_code
from configs.load import read_yaml
from configs.run_files import objects, score
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import number
from pretrain.run.ownership import LAUNCHER
from tools import command
from tools.text_table import aligned

TAIL = 2**17
"""Bytes at the end of metrics.jsonl that are read: some hundred rows."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run in the list; None for what its files do not hold.

    Args:
        state: running, done, stopped, failed; the launcher's state where the run has not begun.
        step: of the last logged row, or of the status where that is further.
        steps: that the run is configured for.
        held_out: the last held-out bound, or loss where there is no bound.
        age_s: seconds since something was logged.
    """

    run: str
    state: str
    step: int | None
    steps: int | None
    loss: float | None
    held_out: float | None
    tokens_per_second: float | None
    age_s: float | None
    reason: str


def find_runs(root: Path) -> Iterator[Path]:
    """The run directories at and below a directory, in the order of their names."""
    for place, directories, files in os.walk(root):
        directories.sort()
        if "attempts" in directories or "status.json" in files or LAUNCHER in directories:
            directories.clear()  # nothing below a run is a run
            yield Path(place)
        directories[:] = [name for name in directories if not name.startswith(".")]


def look(run: Path) -> Listed:
    """State, progress and numbers of a run, read from its own files."""
    directory = RunDirectory(run)
    status = directory.read_status()
    rows = _last_rows(directory.metrics)
    row: dict[str, Any] = next((row for row in reversed(rows) if "loss" in row), {})
    _, held_out = score(rows) or ("", None)
    launched = _launcher(run) if not status else {}
    steps = [n for n in (row.get("step"), status.get("step")) if type(n) is int]
    return Listed(
        run=str(run),
        state=str(status.get("state") or launched.get("state") or "unknown"),
        step=max(steps, default=None),
        steps=_steps(directory.config),
        loss=number(row.get("loss")),
        held_out=number(held_out),
        tokens_per_second=number(row.get("perf/tokens_per_second")),
        age_s=_age(directory.metrics, directory.status),
        reason=str(status.get("reason") or launched.get("reason") or ""),
    )


def _launcher(run: Path) -> dict[str, Any]:
    """The launcher's state file of a run that has not begun."""
    try:
        found = json.loads((run / LAUNCHER / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_rows(file: Path) -> list[dict[str, Any]]:
    """The rows in the last :data:`TAIL` bytes of a metrics file."""
    try:
        with file.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - TAIL)
            stream.seek(start)
            lines = stream.read().split(b"\n")
    except OSError:
        return []
    return objects(lines[1:] if start else lines)


def _steps(config: Path) -> int | None:
    try:
        steps = read_yaml(config).get("steps")
    except UserError:
        return None
    return steps if type(steps) is int else None


def _age(*files: Path) -> float | None:
    """Seconds since the first of the files that exists was written."""
    for file in files:
        try:
            return max(0.0, time.time() - file.stat().st_mtime)
        except OSError:
            continue
    return None


def table(found: Sequence[Listed]) -> str:
    """A text table, one line for each run."""
    heads = ["run", "state", "step", "loss", "held-out", "tokens/s", "age", ""]
    return "\n".join(aligned([heads, *(_cells(one) for one in found)], right=range(2, 7)))


def _cells(one: Listed) -> list[str]:
    step = "" if one.step is None else f"{one.step:,}"
    whole = "" if one.steps is None else f"/{one.steps:,}"
    speed = "" if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}"
    reason = one.reason if len(one.reason) < 60 else f"{one.reason[:57]}..."
    cells = [
        one.run,
        one.state,
        step + whole if step else "",
        "" if one.loss is None else f"{one.loss:.4f}",
        "" if one.held_out is None else f"{one.held_out:.4f}",
        speed,
        "" if one.age_s is None else duration(one.age_s),
        reason,
    ]
    return [" ".join(cell.split()) for cell in cells]


def duration(seconds: float) -> str:
    """Seconds as a whole number of the largest unit of which there are two or more."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = command.parser("runs", __doc__)
    parser.add_argument(
        "directories",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="run directories, or directories that hold some (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list, times in seconds")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _list(arguments.directories or [Path("runs")], arguments.json))


def _list(directories: Sequence[Path], as_json: bool) -> int:
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"{directory} is no directory; name one that holds runs")
    paths = dict.fromkeys(path for directory in directories for path in find_runs(directory))
    found = [look(path) for path in paths]
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    elif found:
        print(table(found))
    else:
        print(f"no runs in {', '.join(map(str, directories))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
