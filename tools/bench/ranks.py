"""The work of the ranks of `parallel`: the trainer's step under an engine, timed.

A step is what :class:`pretrain.trainer.Trainer` does between reading and logging, but for
the average of the weights: corrupt, agree on the count, forward, backward, clip, AdamW.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from model.facts import facts_of
from model.objectives import Batch
from pretrain.config import RunConfig
from pretrain.launch.local import World
from pretrain.parallel.build import build
from pretrain.parallel.mesh import Mesh
from pretrain.step import TrainingStep
from tools.bench.measure import interleaved
from tools.bench.whole_step import plain_step, present_loss, synthetic_tokens

WARM_UP = 4
"""Steps before anything is compared or timed: what follows a block starts at zero, so its
weights have no gradient before the third."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a rank measured, by side.

    Args:
        seconds: of a step, one figure for each repeat.
        losses: nats a token after the warm-up, on one batch.
    """

    seconds: Mapping[str, list[float]]
    losses: Mapping[str, float]
    threads: int


class EngineStep:
    """One rank's part of a step; all ranks call it together."""

    def __init__(self, config: RunConfig, mesh: Mesh) -> None:
        self.engine = build(config, mesh)
        self._config = config
        self._tokens_NL = synthetic_tokens(config)
        whole_NL = torch.ones_like(self._tokens_NL, dtype=torch.bool)
        facts = facts_of(lambda: (self._tokens_NL, whole_NL), config.model.vocab_size)
        self._training = TrainingStep(config, self.engine, mesh, self._read, facts)
        self._number = 0

    def __call__(self) -> None:
        """The next step."""
        self._number += 1
        micro_batches = self._training.corrupt(self._number, self._training.read(self._number))
        counts, _ = self._training.all_reduce_counts(micro_batches)
        self._training.run(self._number, micro_batches, counts)
        assert not self.engine.skipped

    def _read(self, positions: range) -> Batch:
        first = positions.start % self._config.global_batch
        tokens_BL = self._tokens_NL[first : first + len(positions)]
        valid_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
        return {"tokens": tokens_BL, "valid": valid_BL, "position": torch.tensor(positions)}


def against_plain(world: World, config: RunConfig, steps: int, repeats: int) -> Timed:
    """The engine and the plain loop in turn, in one process of one rank."""
    mesh = Mesh(world)
    plain, denoiser = plain_step(config, mesh.device)
    ours = EngineStep(config, mesh)
    for _ in range(WARM_UP):
        plain()
        ours()
    losses = {
        "plain": present_loss(config, denoiser.ask),
        "engine": present_loss(config, ours.engine.ask),
    }
    seconds = interleaved(
        {"plain": plain, "engine": ours},
        steps=steps,
        repeats=repeats,
        synchronize=lambda: None,
        advance=lambda: None,
    )
    mesh.close()
    return Timed(seconds=seconds, losses=losses, threads=torch.get_num_threads())


def together(world: World, config: RunConfig, steps: int, threads: int) -> Timed:
    """The ranks of one layout, with ``threads`` threads each."""
    layout = config.parallel
    mesh = Mesh(world, tensor=layout.tensor, pipeline=layout.pipeline)
    return _one_figure(mesh, config, steps, threads, mesh.barrier)


def apart(world: World, config: RunConfig, steps: int, threads: int) -> Timed:
    """Ranks that train each for itself, at the same time."""
    meeting = world.init_method.removeprefix("file://")
    single = replace(world, rank=0, size=1, init_method=f"file://{meeting}-{world.rank}")

    def meet() -> None:
        store = dist.FileStore(f"{meeting}-meeting", world.size)
        store.set(str(world.rank), "here")
        store.wait([str(rank) for rank in range(world.size)])

    return _one_figure(Mesh(single), config, steps, threads, meet)


def _one_figure(
    mesh: Mesh, config: RunConfig, steps: int, threads: int, meet: Callable[[], None]
) -> Timed:
    torch.set_num_threads(threads)
    step = EngineStep(config, mesh)
    for _ in range(WARM_UP):
        step()
    loss = present_loss(config, step.engine.ask)
    step()
    meet()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - begin) / steps
    mesh.close()
    return Timed(seconds={"step": [seconds]}, losses={"step": loss}, threads=threads)
