"""By blocks: left to right over blocks, masked diffusion within each (Arriola et al. 2025, alg. 2).

A block begins as [MASK]s and is filled in by ancestral steps, given the finished blocks before it.
A finished block is read once more, clean as in training, for its keys and values, which all later
blocks see: nothing of it is computed again (the key/value cache).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import UserError
from model.attention_layouts import Blocks, Cached
from model.config import ModelConfig
from model.prediction import Answer, Prediction, Read
from model.processes.absorbing import stay_masked
from model.query import Query
from model.samplers import Job, Sampler, check_steps, check_temperature

Step = tuple[Tensor, Tensor]
"""Which positions of a block are revealed ``[B, b]``, and the level at which they are asked for."""


@dataclass(frozen=True, kw_only=True)
class Blockwise(Sampler):
    """Blocks from left to right; the masks of each become text at random places.

    Text that is given must stand before what is written, or in the same block. Only the last
    position may be given all the same: the EOS by which a window of a stream is framed.

    Args:
        steps: of each block, evenly spaced in time; by default as many as it has masks, each at
            the time at which the next one of them is revealed (first hitting, Zheng et al. 2024).
        temperature: of the token draws; 0 takes the likeliest.
        top_p: draw among the likeliest ids that together reach this share of the probability,
            temperature aside (Holtzman et al. 2020); 1 for all.
        cache: keep keys and values of finished blocks; without, every step reads them again. The
            ids are the same.
    """

    undoes = ("mask",)
    lays_out = True

    steps: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    cache: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_steps(self.steps)
        check_temperature(self.temperature)
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")

    def num_steps(self, length: int) -> int:
        """One for each position, or all of every block: there may be as many as positions."""
        return length * (self.steps or 1)

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """It goes by the blocks of an objective that has some."""
        super().suits(objective, model)
        if not hasattr(objective, "block_size"):
            method = type(objective).__module__.rpartition(".")[2]
            raise ValueError(
                f"sampler {self.name} undoes mask noise by blocks, and objective {method} has none: "
                f"its own sampler is {objective.sampler}"
            )

    def run(self, job: Job) -> Tensor:
        """The ids after the last block in which anything is free.

        Raises:
            UserError: something is given behind a block in which something is free.
        """
        size, length = job.objective.block_size, job.ids_BL.shape[1]
        _check_order(job.free_BL, size)
        ids_BL = torch.where(job.free_BL, job.model.mask, job.ids_BL)
        stop = int(job.free_BL.any(dim=0).nonzero().max(initial=0)) if False else _stop(job.free_BL)
        for start in range(0, stop, size):
            block = range(start, min(start + size, length))
            ids_BL = self._write(job, ids_BL, block)
            if self.cache and block.stop < stop:
                self._store(job, ids_BL, block)
        return ids_BL
