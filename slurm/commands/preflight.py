"""Checks before a submission: the configuration, its layout, SLURM's limits, other jobs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import RunError, UserError
from configs.words import split
from slurm import controller, quoting
from slurm.controller import MissingError, RefusedError
from slurm.durations import readable, seconds
from slurm.records import Records
from slurm.settings import Settings

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel")


def dry_run(settings: Settings, words: Sequence[str]) -> dict[str, Any]:
    """Output of ``python -m pretrain --dry-run`` for the run on these nodes.

    It sets ``watchdog_leave``: ranks that hang leave, so that the job starts again.

    Raises:
        UserError: the configuration is wrong, or does not fit nodes x ranks.
    """
    for word in words:
        if word.startswith("-") and "=" not in word:
            raise UserError(
                f"{word} stands after --, where only configuration files and settings of the run "
                "stand; options of submit come before it, and those of pretrain have no place here"
            )
    counts = [str(nodes * settings.per_node) for nodes in settings.node_counts]
    files, rest = split(words)
    command = [sys.executable, "-m", "pretrain", *map(str, files), "watchdog_leave=true", *rest]
    command += ["--dry-run", "--json", "--ranks", ",".join(counts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise UserError(done.stderr.strip().removeprefix("error: "))
    if done.returncode:
        raise RunError(f"the dry run of pretrain failed:\n{done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    quoting.require_usable(Path(found["run_dir"]).resolve())
    _fits(settings, found["layouts"])
    return found


def _fits(settings: Settings, layouts: Mapping[str, Any]) -> None:
    """UserError unless the run fits on its nodes (elastic: on the maximum)."""
    for nodes in settings.node_counts:
        entry = layouts[str(nodes * settings.per_node)]
        if entry["problem"] and not (settings.elastic and entry["layout"]):
            if settings.elastic and nodes < settings.nodes:
                continue
            raise UserError(
                f"{nodes} nodes x {settings.per_node} ranks: {entry['problem']}; or change nodes, "
                "gpus_per_node or ranks_per_node"
            )


def time_limit(settings: Settings) -> None:
    """UserError if no partition allows the time limit, which sbatch does not check."""
    asked = seconds(settings.time)
    limits: dict[int, dict[str, str]] = {}
    for facts in controller.partitions(settings.partition):
        most = seconds(facts.get("MaxTime", "UNLIMITED"))
        if most is None or (asked is not None and asked <= most):
            return
        limits[most] = facts
    if limits:
        most, facts = max(limits.items())
        raise UserError(
            f"time {settings.time} is more than partition {facts['PartitionName']} allows: set "
            f"time to {facts['MaxTime']} ({readable(most)}) or less"
        )


def accepted(script: str) -> None:
    """UserError unless ``sbatch --test-only`` accepts a job script."""
    with tempfile.NamedTemporaryFile("w", suffix=".sbatch", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        try:
            controller.call("sbatch", "--test-only", file.name)
        except RefusedError as error:
            text = str(error).replace("sbatch: ", "").replace("error: ", "")
            text = text.removeprefix("allocation failure: ").strip()
            raise UserError(
                f"SLURM would refuse the job: {text}; change nodes, gpus_per_node, "
                "cpus_per_rank, memory, partition or options"
            ) from error


def present() -> None:
    """UserError unless SLURM's commands and configuration are on this machine."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        raise MissingError(f"there is no {', '.join(absent)} here")
    controller.call("scontrol", "--all", "show", "partition", "-o")


def alone(run: Path, *, local: bool = False) -> None:
    """UserError if a job of this run is pending or running.

    A controller that has just restarted may have forgotten a job whose ranks still run: their
    heartbeats count too.
    """
    records = Records(run)
    ids = [row["job"] for row in records.jobs() if not row["job"].startswith("local-")]
    known: Mapping[str, controller.Job | None] = {}
    try:
        known = controller.jobs(ids) if ids else {}
    except MissingError:
        if not local:
            raise
    for number, job in known.items():
        if job is not None and not job.over:
            raise UserError(
                f"{run} is job {number} already, {job.state}; cancel it with: python -m slurm "
                f"cancel {quoting.word(str(run))}"
            )
    if alive(records):
        raise UserError(f"{run} shows signs of life, though no job is known; wait a minute")


def alive(records: Records, within_s: float = 30.0) -> bool:
    """Whether a node of the newest start had a heartbeat lately, by the file system's clock."""
    starts = records.starts()
    if not starts or starts[-1].outcome.exists():
        return False
    beats = [path.stat().st_mtime for path in (starts[-1].path / "beats").glob("*")]
    return bool(beats) and _now(records.root) - max(beats) < within_s


def _now(directory: Path) -> float:
    """Time by the file system's clock, or by this machine's where it cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            return os.stat(file.name).st_mtime
    except OSError:
        return time.time()
