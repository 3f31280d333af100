"""Sequence parallelism: the stream cut along its positions, each cut with its way back.

Between its matrices a tensor-parallel block repeats the same work on every rank. Instead,
each of T ranks may keep L / T positions of the stream (Korthikanti et al. 2022, section
4.2.2): an all-gather before the column layers and a reduce-scatter after the row layers
move as much as the all-reduce they replace. Megatron-core's own functions cut dimension
0 and call CUDA; ours cut dimension 1 of ``[B, L, D]`` and run anywhere.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

DIM = 1


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(group.size())]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, dim=DIM)


def _scattered_sum(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = [part.contiguous() for part in x.chunk(group.size(), dim=DIM)]
    mine = torch.empty_like(parts[0])
    dist.reduce_scatter(mine, parts, group=group)
    return mine


def _own_part(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return x.chunk(group.size(), dim=DIM)[group.rank()].contiguous()


class Gather(torch.autograd.Function):
    """A part to the whole, for work that is split over ranks: gradients are summed back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """All-gather."""
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Reduce-scatter."""
        return _scattered_sum(grad, ctx.group), None


class ReduceScatter(torch.autograd.Function):
    """Partial sums of the whole to the sums of a part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """Reduce-scatter."""
        ctx.group = group
        return _scattered_sum(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """All-gather."""
        return _gathered(grad, ctx.group), None


class Split(torch.autograd.Function):
    """The whole, which all ranks hold alike, to a part: gradients are put together again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """This rank's part."""
        ctx.group = group
        return _own_part(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """All-gather."""
        return _gathered(grad, ctx.group), None


class Whole(torch.autograd.Function):
    """A part to the whole, for work that all ranks repeat: each has the whole gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        """All-gather."""
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """This rank's part."""
        return _own_part(grad, ctx.group), None
