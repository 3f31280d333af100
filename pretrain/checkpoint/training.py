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
from pretrain.parallel.owned import Owned


def _kinds(owned: Owned, ema: Ema) -> dict[str, list[Tensor]]:
    return {
        "master": owned.masters,
        "exp_avg": owned.moments("exp_avg"),
        "exp_avg_sq": owned.moments("exp_avg_sq"),
        "ema": ema.shadows,
    }


def save(
    directory: Path, state: dict[str, Any], owned: Owned, ema: Ema, mesh: Mesh, keep_last: int
) -> None:
    """Save on all ranks; when this returns the checkpoint is committed. ``state`` has a step."""
    writer = Writer(directory, state["step"])
    if mesh.is_first:
        writer.prepare()
    mesh.barrier()
    pieces = {
        kind: [(f.range, f.of(flats)) for f in owned.fragments if not f.is_copy]
        for kind, flats in _kinds(owned, ema).items()
    }
    writer.write(mesh.rank, pieces)
    mesh.barrier()
    if mesh.is_first:
        writer.commit(state)
        prune(directory, keep_last)
    mesh.barrier()


def restore(path: Path, owned: Owned, ema: Ema) -> dict[str, Any]:
    """Load a checkpoint into masters, moments and average; return its ``state``."""
    reader = Reader(path)
    for kind, flats in _kinds(owned, ema).items():
        for fragment in owned.fragments:
            fragment.of(flats).copy_(reader.read(kind, fragment.range))
    owned.set_optimizer_step(reader.state["optimizer_step"])
    owned.refresh()
    return reader.state
