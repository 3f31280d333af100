"""Free memory: of a GPU, or of this machine within the limits of its control groups.

A container or a SLURM job may use less than the machine has: Linux keeps such limits in
control groups (cgroups), each of which holds for all below it. Both versions are read.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path("/")


def available_bytes(device: torch.device, root: Path = ROOT) -> int | None:
    """Bytes that can still be allocated on a device; None where the system does not report it.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_machine(root), *_cgroups(root)]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _machine(root: Path) -> int | None:
    """The kernel's estimate of memory available without swapping."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
        return int(found["MemAvailable"]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _cgroups(root: Path) -> Iterator[int | None]:
    """The remainder of every memory limit that applies to this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            mount = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = Path(path.lstrip("/"))
        for one in (group, *group.parents):
            yield _left(mount / one, *names)


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """The limit of a group, less its memory that cannot be reclaimed."""
    try:
        most = int((group / limit).read_text(encoding="ascii"))
        used = int((group / usage).read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None  # no limit ("max"), or no such group
    cached = sum(int(line.split()[1]) for line in stat if line.split()[:1] == [reclaimable])
    return max(0, most - used + cached)
