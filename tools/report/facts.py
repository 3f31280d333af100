"""What a run is and where it came from, by the files of its directory."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from configs.errors import UserError
from configs.json_files import read_json
from pretrain.checkpoint import store
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import number
from tools.report.curves import Run


def summary(run: Run) -> str:
    """Objective, architecture, state and the newest held-out number, in a line."""
    status = RunDirectory(run.path).read_status()
    parts = [
        _name(run, "objective"),
        _name(run, "model"),
        f"{status.get('state', 'of unknown state')} at step {run.rows[-1]['step']:,}",
    ]
    if run.held_out:
        _, values = run.curve(run.held_out)
        parts.append(f"held-out {run.held_out.removeprefix('val/')} {values[-1]:.4f}")
    return " · ".join(part for part in parts if part)


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """Names and values; what a run's files do not tell is left out."""
    directory = RunDirectory(run.path)
    if directory.config.exists():
        digest = hashlib.sha256(directory.config.read_bytes()).hexdigest()
        yield "configuration", f"SHA-256 {digest[:12]}"
    origin = read_json(run.path / "run.json")
    if commit := origin.get("git_commit"):
        yield "commit", str(commit)
    newest = store.committed(directory.checkpoints)
    if newest:
        yield from _of_checkpoint(newest[-1])
    tokens = number(run.rows[-1].get("tokens_seen"))
    if tokens is not None:
        yield "tokens seen", f"{tokens:,.0f}"
    seconds = [number(row.get("perf/elapsed_s")) for row in run.rows]
    if known := [value for value in seconds if value is not None]:
        yield "time", str(timedelta(seconds=round(max(known))))
    if hardware := _hardware(origin):
        yield "hardware", hardware
    packages = origin.get("packages")
    if isinstance(packages, dict):
        yield "packages", ", ".join(f"{name} {version}" for name, version in packages.items())


def _of_checkpoint(path: Any) -> Iterator[tuple[str, str]]:
    from tools.inspect import describe

    try:
        found = describe(path)
    except UserError as error:
        yield "checkpoint", f"{path.name} cannot be read: {error}"
        return
    yield "parameters", f"{found['parameters']['total']:,}"
    layout = found["layout"]
    if isinstance(layout, dict):
        yield "layout", ", ".join(f"{axis} {size}" for axis, size in layout.items())
    yield "checkpoint", path.name


def _hardware(origin: dict[str, Any]) -> str:
    gpus = origin.get("gpus")
    if isinstance(gpus, list) and gpus:
        kinds = dict.fromkeys(map(str, gpus))
        return ", ".join(f"{gpus.count(kind)} x {kind} on the first node" for kind in kinds)
    cores = origin.get("cores")
    return f"CPU, {cores} cores, {origin.get('platform')}" if cores else ""


def _name(run: Run, block: str) -> str:
    found = run.config.get(block)
    return str(found.get("name", "")) if isinstance(found, dict) else ""
