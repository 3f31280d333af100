"""Interleaved timings, fair on a machine that others use too, and facts of the machine."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    *,
    steps: int,
    repeats: int,
    synchronize: Callable[[], None],
    advance: Callable[[], object],
    warm: bool = True,
) -> dict[str, list[float]]:
    """Seconds per call of every side, one figure for each repeat.

    The sides take turns within a repeat, so that a disturbance meets them all. Before each
    figure one call is not counted: in training a step follows its like, and finds its own
    memory in the allocator and not the other side's. The first repeat does not count either.

    Args:
        sides: what to time, by name.
        steps: calls in a row that make up one figure.
        repeats: figures for each side.
        synchronize: waits for the device.
        advance: called after every side of every repeat, the first one included.
        warm: make the call that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(-1, repeats):
        for name, call in sides.items():
            if warm:
                call()
                synchronize()
            begin = time.perf_counter()
            for _ in range(steps):
                call()
            synchronize()
            if repeat >= 0:
                seconds[name].append((time.perf_counter() - begin) / steps)
            advance()
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the repeats of the ratio ``slow / fast`` of neighbouring timings."""
    return median(s / f for s, f in zip(slow, fast, strict=True))


def machine_facts(device: torch.device) -> dict[str, object]:
    """Processor, cores, threads, torch and the load, as far as they are known."""
    facts: dict[str, object] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "device": str(device),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
