"""The report of verdicts: one row each, and all figures of the first that breaks."""

import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from model.verification.check import Comparison, Verdict

PACKAGES = ("palimpsest", "torch", "deepspeed", "megatron-core")
HEAD = f"  {'check':<44}{'time':>7}  {'nearest its bound':<28}{'deviation':>11}{'allowed':>10}"

ADVICE = """\
Run it again: python -m tools.verify {again}
If it breaks again, do not train with this installation. Where a version below is not one that
setup.py asks for, install that one; else send the maintainers everything from BROKEN on."""


def facts(ranks: int) -> dict[str, str]:
    """Facts of the installation that belong in a report of a break."""
    on_gpu = torch.cuda.is_available()
    cores = f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"
    found = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    if on_gpu:
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        found["cuda"], found["nccl"] = str(torch.version.cuda), nccl
    hardware = torch.cuda.get_device_name() if on_gpu else cores
    found["ranks"] = f"{ranks} over {'nccl' if on_gpu else 'gloo'} on {hardware}"
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def line(known: Mapping[str, str]) -> str:
    """The facts in one line."""
    return ", ".join(f"{name} {value}" for name, value in known.items())


def mark(holds: bool) -> str:
    """A tick or a cross, in words where the terminal's encoding has neither."""
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok" if holds else "NO"
    return "✓" if holds else "✗"


def row(verdict: Verdict) -> str:
    """The comparison that is nearest its bound, or beyond it."""
    worst = verdict.worst
    head = f"{mark(verdict.holds)} {verdict.name:<44}{verdict.seconds:6.1f}s"
    if worst is None:
        return f"{head}  {verdict.error.strip().splitlines()[-1][:90]}"
    return f"{head}  {worst.what:<28}{_deviation(worst):>11}{_allowed(worst):>10}"


def _deviation(one: Comparison) -> str:
    if one.allowed:
        return f"{one.deviation:.1e}"
    return f"{one.deviation:g} differ" if one.deviation else "0"


def _allowed(one: Comparison) -> str:
    return f"{one.allowed:.0e}" if one.allowed else "0"


def record(verdict: Verdict) -> dict[str, Any]:
    """All of it as plain data; a deviation that is not finite is a string."""
    return {
        "name": verdict.name,
        "holds": verdict.holds,
        "seconds": verdict.seconds,
        "error": verdict.error,
        "comparisons": [
            {
                **vars(one),
                "deviation": one.deviation if math.isfinite(one.deviation) else str(one.deviation),
                "holds": one.holds,
            }
            for one in verdict.comparisons
        ],
    }


def breakage(verdict: Verdict, known: Mapping[str, str], again: Sequence[str]) -> str:
    """The report of a check that broke; ``again`` are the options that repeat it."""
    lines = ["", f"BROKEN: {verdict.name}"]
    if verdict.error:
        lines.append(verdict.error.rstrip())
    for one in verdict.comparisons:
        allowed = "" if one.allowed == 0 else f", allowed {_allowed(one)}"
        lines.append(f"  {mark(one.holds)} {one.what}: {_deviation(one)}{allowed}")
        if not one.holds and one.figures:
            lines += [f"      {text}" for text in one.figures.splitlines()]
    if verdict.error and "nccl" in known:
        lines.append("NCCL says more about its own errors under NCCL_DEBUG=INFO.")
    return "\n".join([*lines, "", ADVICE.format(again=" ".join(again)), line(known)])
