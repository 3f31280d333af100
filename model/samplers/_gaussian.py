"""Base of the Gaussian diffusion samplers: the loop from noise to embeddings to ids.

A sampler is a sequence of noise indices and a step from one to the next. Both may differ between
samples and positions: signal shares (abar) are ``[B or 1, L or 1, 1]``.
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
"""A function that draws standard normals in the shape of the embeddings."""


def plan(num_steps: int, steps: int) -> list[int]:
    """Noise indices ``[steps + 1]`` from T - 1 down to -1, evenly spaced over T.

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
    """A sampler over embeddings; subclasses are dataclasses with these settings and their own.

    Attributes:
        steps: number of network evaluations.
        clamp_below: at noise levels up to this one the predicted x_0 is replaced by the nearest
            embedding (the clamping trick).
    """

    undoes = ("gaussian",)

    steps: int
    clamp_below: float

    def __post_init__(self) -> None:
        check_steps(self.steps)
        if not 0.0 <= self.clamp_below <= 1.0:
            raise ValueError(f"clamp_below must lie in [0, 1], not {self.clamp_below}")

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """See :meth:`Sampler.suits`; the process needs at least as many steps."""
        super().suits(objective, model)
        plan(objective.process.num_steps, self.steps)

    def within(self, objective: Any) -> Sampler:
        """The sampler with at most as many steps as the process has."""
        kind: Any = type(self)
        found: Sampler = kind(
            **{**vars(self), "steps": min(self.steps, objective.process.num_steps)}
        )
        return found

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    @abstractmethod
    def move(self, x: Tensor, x0: Tensor, abar_i: Tensor, abar_j: Tensor, normal: Normal) -> Tensor:
        """One denoising step: embeddings at index j; unchanged where j equals i.

        Args:
            x: embeddings at index i. x0: predicted clean embeddings.
            abar_i, abar_j: float64 signal shares that broadcast against x; 1 for index -1.
            normal: draws standard normals in the shape of x.
        """

    def indices(self, process: Gaussian, length: int) -> Tensor:
        """Noise indices by step, int64 ``[steps + 1, 1, K]``: here the same for all positions."""
        return torch.tensor(plan(process.num_steps, self.steps))[:, None, None]

    def run(self, job: Job) -> Tensor:
        """Generate the ids: denoise from the prior and round the last embeddings.

        Raises:
            ValueError: some positions are not free, which this process cannot keep.
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
        """One step: embeddings at index j, the self-conditioning input for the next, and ids."""
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
