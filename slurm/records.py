"""Records of a run's jobs in ``RUN/slurm``, on the file system that all nodes share.

    jobs.jsonl           every job that was submitted for the run
    state.json           state of the run between jobs: waiting, over, given up, and why
    submissions/0001/    job.json, config.yaml, code/, job.sbatch, submitit/, logs/
    starts/0001/         one start of the ranks: job, nodes, logs, outcome
      start.json  rendezvous.json  stop  outcome.json  exits/  beats/  rank-00000.log

Starts are numbered over all submissions, each number a directory that only one process can
make. The highest number supersedes all others: their tasks and supervisors leave.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.json_files import read_json, write_json
from configs.numbered_files import claim, numbers
from configs.run_files import checkpoint_step, objects, read_status, score


def tail(path: Path, size: int = 65536) -> list[str]:
    """The last lines of a file; none if there is no file."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []


@dataclass(frozen=True)
class Start:
    """One start of the ranks."""

    path: Path

    @property
    def number(self) -> int:
        """Number among all starts of the run, from 1 on."""
        return int(self.path.name)

    @property
    def facts(self) -> dict[str, Any]:
        """Contents of start.json: job, restart, submission, nodes, ranks, step, time."""
        return read_json(self.path / "start.json")

    @property
    def rendezvous(self) -> Path:
        """File with address and port of rank 0."""
        return self.path / "rendezvous.json"

    @property
    def stop(self) -> Path:
        """File with the name of the signal that requests a stop of the ranks."""
        return self.path / "stop"

    @property
    def outcome(self) -> Path:
        """File with kind, reason and step of its end."""
        return self.path / "outcome.json"

    @property
    def srun_log(self) -> Path:
        """Output of srun itself."""
        return self.path / "srun.log"

    def log(self, rank: int) -> Path:
        """Output of a rank."""
        return self.path / f"rank-{rank:05d}.log"

    def exit(self, rank: int) -> Path:
        """File with exit status and signals of a rank that has ended."""
        return self.path / "exits" / f"{rank:05d}.json"

    def exits(self) -> dict[int, dict[str, Any]]:
        """Contents of these files, by rank."""
        files = (self.path / "exits").glob("*.json")
        return {int(file.stem): read_json(file) for file in files}

    def beat(self, node: int) -> Path:
        """Heartbeat file of a node, rewritten while the node lives."""
        return self.path / "beats" / str(node)

    @property
    def superseded(self) -> bool:
        """Whether a newer start has begun."""
        return (self.path.parent / f"{self.number + 1:04d}").exists()


@dataclass(frozen=True)
class Records:
    """All records of a run, read and written through one object."""

    run: Path

    @property
    def root(self) -> Path:
        """The directory of the records."""
        return self.run / "slurm"

    # -- the run ------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """Contents of state.json: ``state``, ``reason`` and other facts."""
        return read_json(self.root / "state.json")

    def update_state(self, **facts: Any) -> None:
        """Change some entries of state.json."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / "state.json", {**self.state, **facts, "time": time.time()})

    @property
    def status(self) -> dict[str, Any]:
        """Contents of the run's own status.json; see :func:`configs.run_files.read_status`."""
        return read_status(self.run)

    def saved_step(self) -> int:
        """The step of the newest committed checkpoint; 0 without one."""
        directory = self.run / "checkpoints"
        found = directory.iterdir() if directory.is_dir() else ()
        return max((checkpoint_step(path.name) or 0 for path in found), default=0)

    def last_row(self, key: str = "loss") -> dict[str, Any]:
        """The newest row of the metrics that has a number of this name."""
        rows = objects(tail(self.run / "metrics.jsonl"))
        return next((row for row in reversed(rows) if key in row), {})

    @property
    def score(self) -> tuple[str, Any] | None:
        """See :func:`configs.run_files.score`."""
        return score(objects(tail(self.run / "metrics.jsonl")))

    # -- jobs ---------------------------------------------------------------------------

    def add_job(self, job: str, submission: int, kind: str, **facts: Any) -> None:
        """Record a submitted job; ``kind``: first, chain, successor, requeue, local."""
        self.root.mkdir(parents=True, exist_ok=True)
        row = {"job": job, "submission": submission, "kind": kind, "time": time.time(), **facts}
        with (self.root / "jobs.jsonl").open("ab+") as stream:
            # A line that a crash has cut gets its newline first, or this one would be lost with it.
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, end - 1))
            cut = stream.read(1) not in (b"", b"\n")
            stream.write(b"\n" * cut + json.dumps(row).encode() + b"\n")

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs, oldest first; lines that a crash or a full disk has cut are left out."""
        try:
            text = (self.root / "jobs.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        needed = {"job", "submission", "kind"}
        return [row for row in objects(text.splitlines()) if needed <= row.keys()]

    # -- submissions --------------------------------------------------------------------

    def submission(self, number: int) -> Path:
        """The directory of a submission."""
        return self.root / "submissions" / f"{number:04d}"

    def new_submission(self) -> int:
        """Create the next submission's directory; returns its number."""
        return _claim(self.root / "submissions")

    def newest_submission(self) -> int:
        """The number of the last submission; 0 without one."""
        return max(numbers(self.root / "submissions"), default=0)

    # -- starts -------------------------------------------------------------------------

    def start(self, number: int) -> Start:
        """The start of this number."""
        return Start(self.root / "starts" / f"{number:04d}")

    def starts(self) -> list[Start]:
        """All starts, oldest first."""
        return [self.start(number) for number in numbers(self.root / "starts")]

    def new_start(self, facts: Mapping[str, Any]) -> Start:
        """Create the next start, which supersedes all earlier ones."""
        start = self.start(_claim(self.root / "starts"))
        for name in ("exits", "beats"):
            (start.path / name).mkdir()
        write_json(start.path / "start.json", {**facts, "time": time.time()})
        return start


def _claim(directory: Path) -> int:
    """Make the next numbered directory in this one."""
    directory.mkdir(parents=True, exist_ok=True)
    return claim(directory, Path.mkdir, digits=4)
