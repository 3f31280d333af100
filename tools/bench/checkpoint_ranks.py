"""The work of the ranks of `checkpoint`: build an engine, save its state, load it, timed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoint import store
from pretrain.checkpoint.training import Checkpoints
from pretrain.config import RunConfig
from pretrain.ema import Ema
from pretrain.launch.local import World
from pretrain.parallel.build import build
from pretrain.parallel.mesh import Mesh


@dataclass(frozen=True, kw_only=True)
class Saves:
    """Seconds that a rank took for each of some saves.

    Args:
        stall: that training would wait; blocking: from the beginning to the commit.
        parameters: of the model; digest: of this rank's masters.
    """

    stall: list[float]
    blocking: list[float]
    parameters: int
    digest: float


@dataclass(frozen=True, kw_only=True)
class Loads:
    """Seconds that a rank took for a load: checksums of its share of the files, then reading."""

    verify: float
    load: float
    digest: float


class State:
    """One rank's part of a run that never trains."""

    def __init__(self, world: World, config: RunConfig, directory: Path, attempt: int) -> None:
        layout = config.parallel
        self.mesh = Mesh(world, tensor=layout.tensor, pipeline=layout.pipeline)
        self.engine = build(config, self.mesh)
        self.ema = Ema(config.ema, self.engine.shards.masters)
        self.checkpoints = Checkpoints(directory, config, self.engine, self.ema, self.mesh, attempt)

    @property
    def own(self) -> list[torch.Tensor]:
        """The masters that this rank writes."""
        shards = self.engine.shards
        return [each.of(shards.weights) for each in shards.owned_ranges if not each.is_copy]

    def digest(self) -> float:
        """Sum of squares of the masters that this rank writes; over all ranks the model's."""
        return sum(float(value.double().square().sum()) for value in self.own)


def plain_state(step: int) -> Mapping[str, Any]:
    """The trainer's part of a checkpoint's state that loading needs."""
    counts = dict.fromkeys(("tokens_seen", "skipped_in_a_row", "elapsed_s"), 0)
    return {"step": step, "optimizer_step": step, "score": None, **counts}


def save(world: World, config: RunConfig, directory: Path, repeats: int) -> Saves:
    """Save ``repeats`` times after a first one, which allocates the host's copy."""
    state = State(world, config, directory, 1)
    stall, blocking = [], []
    for step in range(1, repeats + 2):
        state.mesh.barrier()
        began = time.perf_counter()
        note = state.checkpoints.save(dict(plain_state(step)))
        stall.append(time.perf_counter() - began)
        note = state.checkpoints.finish() or note
        blocking.append(time.perf_counter() - began)
        if note:
            raise OSError(note)
    parameters = sum(value.numel() for value in state.own)
    digest = state.digest()
    state.mesh.close()
    return Saves(stall=stall, blocking=blocking, parameters=parameters, digest=digest)


def load(world: World, config: RunConfig, directory: Path, repeats: int) -> list[Loads]:
    """Load the newest checkpoint under the layout of ``config``."""
    state = State(world, config, directory, 2)
    (newest,) = store.committed(directory)
    found = []
    for _ in range(repeats):
        state.mesh.barrier()
        began = time.perf_counter()
        assert store.damage(newest, state.mesh.rank, state.mesh.size) is None
        verified = time.perf_counter()
        state.mesh.barrier()
        again = time.perf_counter()
        loaded, notes = state.checkpoints.resume()
        ended = time.perf_counter()
        assert loaded is not None, notes
        found.append(Loads(verify=verified - began, load=ended - again, digest=state.digest()))
    state.mesh.close()
    return found
