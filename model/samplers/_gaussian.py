"""What samplers of the Gaussian process have in common: the loop from noise to embeddings to ids.

A sampler is a plan of indices and a move from one to the next. Both may differ from sample to
sample and from position to position: signal shares are ``[B or 1, L or 1, 1]``.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from model.networks.config import ModelConfig
from model.prediction import Prediction
from model.processes.gaussian import Gaussian, to_x0
from model.query import Query
from model.samplers import Job, Sampler, check_steps

Normal = Callable[[], Tensor]
"""Draws standard normals in the shape of the embeddings."""


def plan(num_steps: int, steps: int) -> list[int]:
    """Indices ``[steps + 1]`` from T - 1 down to -1, evenly spaced over T.

    Raises:
        ValueError: more steps than there are indices.
    """
    if steps > num_steps:
        raise ValueError(
            f"steps must be at most {num_steps}, of which the process has no more, not {steps}"
        )
    levels = torch.linspace(num_steps, 0, steps + 1, dtype=torch.float64)
    return [int(level) - 1 for level in levels.round().tolist()]


class GaussianSampler(Sampler):
    """A sampler over embeddings; deriving classes are dataclasses with these settings and theirs.

    Attributes:
        steps: evaluations of the network.
        clamp_below: at levels up to this one the prediction is replaced by the nearest embedding.
    """

    undoes = ("gaussian",)

    steps: int
    clamp_below: float

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if not 0.0 <= self.clamp_below <= 1.0:
            raise ValueError(f"clamp_below must lie in [0, 1], not {self.clamp_below}")

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """It needs a process with as many steps."""
        super().suits(objective, model)
        plan(objective.process.num_steps, self.steps)

    def within(self, objective: Any) -> Sampler:
        """With no more steps than the process has."""
        kind: Any = type(self)
        found: Sampler = kind(
            **{**vars(self), "steps": min(self.steps, objective.process.num_steps)}
        )
        return found

    def num_steps(self, length: int) -> int:
        """All of them."""
        return self.steps

    @abstractmethod
    def move(self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, normal: Normal) -> Tensor:
        """The embeddings at index j; where j is i they stay as they are.

        Args:
            x: of index i. x0: clean ones, as they are predicted.
            abar_i, abar_j: float64 signal shares that broadcast against x; of index -1 it is 1.
        """

    def indices(self, process: Gaussian, length: int) -> Tensor:
        """The plan, int64 ``[steps + 1, 1, K]``: here the same for all positions."""
        return torch.tensor(plan(process.num_steps, self.steps))[:, None, None]

    def run(self, job: Job) -> Tensor:
        """The ids that the last embeddings are rounded to.

        Raises:
            ValueError: some positions are given, which this process cannot keep.
        """
        if not bool(job.free_BL.all()):
            raise ValueError(f"sampler {self.name} writes whole texts: leave every position free")
        shape = (*job.ids_BL.shape, job.model.table_width)
        device = job.ids_BL.device

        def normal(kind: str) -> Tensor:
            return job.draws.normal(kind, job.position_B, shape[1] * shape[2]).view(shape)

        base = job.encode(
            Query(
                ids_BL=torch.zeros_like(job.ids_BL),
                level_BK=torch.ones(shape[0], 1, device=device),
                predict_mask_BL=job.free_BL,
                signal_BK=torch.zeros(shape[0], 1, device=device),
                source_BS=job.source_BS,
                source_valid_BS=job.source_valid_BS,
            )
        )
        process, ids_BL = job.objective.process, base.ids_BL
        x, self_cond = normal("prior"), None
        indices = self.indices(process, shape[1]).to(device)
        for number, (i_BK, j_BK) in enumerate(pairwise(indices)):
            level_BK = process.level(i_BK).expand(shape[0], -1)
            query = replace(base, level_BK=level_BK, noise_BLE=x, self_cond_BLE=self_cond)
            read = partial(self._moved, job.objective, i_BK, j_BK, x)
            x, seen, ids_BL = job.ask(query, partial(read, partial(normal, f"step/{number}")))
            self_cond = seen if job.objective.refines else None
            job.on_step(ids_BL)
        return ids_BL

    def _moved(
        self,
        objective: Any,
        i_BK: Tensor,
        j_BK: Tensor,
        x: Tensor,
        normal: Normal,
        found: Prediction,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The embeddings at index j, the clean ones that the network sees, and ids."""
        assert found.vector_ME is not None
        assert found.table is not None
        process = objective.process
        abar_i, abar_j = (process.abar(index_BK)[..., None] for index_BK in (i_BK, j_BK))
        output = found.vector_ME.float().view(x.shape)
        self_cond = x0 = to_x0(objective.prediction, output, x, abar_i.float())
        clamped_BK1 = process.level(i_BK)[..., None] <= self.clamp_below
        if bool(clamped_BK1.any()):
            nearest = found.table.nearest(x0.flatten(0, 1)).view(x.shape)
            x0 = torch.where(clamped_BK1, nearest, x0)
        x = self.move(x, x0, abar_i, abar_j, normal)
        return x, self_cond, found.table.round(x.flatten(0, 1)).view(x.shape[:2])
