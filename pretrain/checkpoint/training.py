"""The state of training, to and from a checkpoint.

Every rank saves the ranges it owns and reads the ranges it owns: masters, both moments
and the average; the step and plain data are one file for all.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from pretrain.checkpoint.store import Reader, Writer, prune
from pretrain.ema import Ema
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.zero import ZeroEngine


def _kinds(engine: ZeroEngine, ema: Ema) -> dict[str, list[Tensor]]:
    return {
        "master": engine.masters,
        "exp_avg": engine.moments("exp_avg"),
        "exp_avg_sq": engine.moments("exp_avg_sq"),
        "ema": ema.shadows,
    }


def save(
    directory: Path, state: dict[str, Any], engine: ZeroEngine, ema: Ema, mesh: Mesh, keep_last: int
) -> None:
    """Save on all ranks; when this returns the checkpoint is committed. ``state`` has a step."""
    writer = Writer(directory, state["step"])
    if mesh.is_first:
        writer.prepare()
    mesh.barrier()
    pieces = {
        kind: [(fragment.range, fragment.of(flats)) for fragment in engine.fragments]
        for kind, flats in _kinds(engine, ema).items()
    }
    writer.write(mesh.rank, pieces)
    mesh.barrier()
    if mesh.is_first:
        writer.commit(state)
        prune(directory, keep_last)
    mesh.barrier()


def restore(path: Path, engine: ZeroEngine, ema: Ema) -> dict[str, Any]:
    """Load a checkpoint into engine and average; return its ``state``."""
    reader = Reader(path)
    for kind, flats in _kinds(engine, ema).items():
        for fragment in engine.fragments:
            fragment.of(flats).copy_(reader.read(kind, fragment.range))
    engine.set_optimizer_step(reader.state["optimizer_step"])
    engine.refresh()
    return reader.state
