"""What other programs read of a run's files: its status, its scores, its checkpoints' names.

``status.json`` names the first rank's process, which touches the file while it lives. So any
reader can tell a run whose processes were killed from one that goes on: at once on the same
machine, after :data:`SILENT_S` without a heartbeat on another.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.json_files import read_json

BEAT_S = 10.0
"""Seconds between two touches of status.json."""

SILENT_S = 90.0
"""Seconds without a touch after which a process that cannot be looked up counts as gone."""

_CHECKPOINT = re.compile("step-([0-9]{8,})")

SCORES = ("val/nelbo", "val/loss")
"""Metrics that can be a run's held-out score; the first that it has is used."""

RUNNING, DIED = "running", "died"


def checkpoint_name(step: int) -> str:
    """The name of the directory that holds the checkpoint of a step."""
    return f"step-{step:08d}"


def checkpoint_step(name: str) -> int | None:
    """The step of a checkpoint by its directory's name; None for any other name."""
    found = _CHECKPOINT.fullmatch(name)
    step = int(found[1]) if found else None
    return step if step is not None and checkpoint_name(step) == name else None


def score(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Any] | None:
    """Name and value of the newest held-out score in metrics rows; None without one."""
    found = ((name, row[name]) for row in reversed(rows) for name in SCORES if name in row)
    return next(found, None)


def objects(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Parse lines of JSON; lines that hold no object are left out."""
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def this_process() -> dict[str, Any]:
    """Identity of this process, unique across hosts, reboots and reused process ids."""
    return process(os.getpid())


def process(pid: int) -> dict[str, Any]:
    """Identity of another process on this machine."""
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": _started(pid),
        "processes": _namespace(),
    }


def read_status(run: Path) -> dict[str, Any]:
    """Contents of a run's status.json; empty if it is missing or damaged.

    If the state is ``running`` but the process has ended, ``state`` becomes ``died`` and
    ``reason`` the evidence.
    """
    file = run / "status.json"
    status = read_json(file)
    try:
        silent_s = max(0.0, time.time() - file.stat().st_mtime)
    except OSError:
        return {}
    if status.get("state") == RUNNING:
        reason = evidence_of_end(status.get("process"), silent_s)
        if reason:
            return {**status, "state": DIED, "reason": reason}
    return status


def evidence_of_end(facts: Any, silent_s: float = 0.0) -> str | None:
    """Evidence that a process has ended; None if it may live.

    Args:
        facts: its identity, from :func:`process`. silent_s: seconds since its last heartbeat, if
            it has one.
    """
    known = facts if isinstance(facts, dict) else {}
    host, pid = known.get("host"), known.get("pid")
    named = f"process {pid} on {host}" if host and pid else "its process"
    here = known.get("processes") == _namespace() and host == socket.gethostname()
    if here and isinstance(pid, int) and known.get("started") is not None:
        return None if _started(pid) == known["started"] else f"{named} has ended without a word"
    if silent_s > SILENT_S:
        return f"{named} has been silent for {silent_s:.0f} s"
    return None


def _namespace() -> str | None:
    """The boot and the container in which process ids are unique; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None if it has ended or is hidden."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; state is the first field behind it.
    fields = facts.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]
