"""What the ranks of `parallel` do: the trainer's step under an engine, timed.

A step is what :class:`pretrain.trainer.Trainer` does between reading and logging: corrupt,
agree on the count, forward, backward, clip, AdamW, and look whether the step was skipped.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from model.draws import Draws
from pretrain.config import RunConfig
from pretrain.launch import World
from pretrain.layout import positions
from pretrain.parallel import engine
from pretrain.parallel.mesh import Mesh
from tools.bench.measure import interleaved
from tools.bench.whole_step import plain_step, present_loss, synthetic_tokens

WARM_UP = 4
"""Steps before anything is timed or compared: the first three train no weight of a block,
since what follows them starts at zero."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds a step and the loss at the end, by side; threads of the process."""

    seconds: Mapping[str, list[float]]
    losses: Mapping[str, float]
    threads: int


class EngineStep:
    """One rank's part of a step; all ranks call it together."""

    def __init__(self, config: RunConfig, mesh: Mesh) -> None:
        self.config, self.mesh = config, mesh
        self.engine = engine.build(config, mesh)
        self.loss = torch.zeros(())
        self._tokens_NL = synthetic_tokens(config)
        self._draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
        self._step = 0

    def __call__(self) -> None:
        """One step."""
        config, mesh = self.config, self.mesh
        self._step += 1
        micro_batches = []
        own_count = torch.zeros((), dtype=torch.int64)
        mine = positions(config, self._step, mesh.data_rank, mesh.data_size) if mesh.reads else ()
        for part in mine:
            first = part.start % config.global_batch
            tokens_BL = self._tokens_NL[first : first + len(part)]
            valid_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
            batch = {"tokens": tokens_BL, "valid": valid_BL, "position": torch.tensor(part)}
            noisy = config.objective.corrupt(batch, self._draws, config.model)
            micro_batches.append((noisy, valid_BL))
            own_count += noisy.count
        count, _ = mesh.agree(own_count, asked=False)
        sums = self.engine.train_step(micro_batches, count, config.optim.lr)
        assert not self.engine.skipped
        self.loss = sums.loss / count


def against_plain(world: World, config: RunConfig, steps: int, repeats: int) -> Timed:
    """The engine and the plain loop in turn, in one process."""
    mesh = Mesh(world)
    plain, denoiser = plain_step(config, mesh.device)
    ours = EngineStep(config, mesh)
    for _ in range(WARM_UP):
        plain()
        ours()
    losses = {
        "plain": present_loss(config, denoiser),
        "engine": present_loss(config, ours.engine),
    }
    seconds = interleaved(
        {"plain": plain, "engine": ours},
        steps=steps, repeats=repeats, synchronize=lambda: None, advance=lambda: None,
    )  # fmt: skip
    mesh.close()
    return Timed(seconds=seconds, losses=losses, threads=torch.get_num_threads())
