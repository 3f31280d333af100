"""Sequence parallelism: collectives that split the stream along its positions, with gradients.

Between its matrices a tensor-parallel block repeats the same work on every rank. Instead,
each of T ranks may keep L / T positions of the stream (Korthikanti et al. 2022, section
4.2.2): an all-gather before the column layers and a reduce-scatter after the row layers
move as much as the all-reduce they replace. Megatron-core's own functions cut dimension
0 and call CUDA; ours cut dimension 1 of ``[B, L, D]`` and run anywhere.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

DIM = 1

Exchange = Callable[[Tensor, dist.ProcessGroup], Tensor]


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


class _Exchange(torch.autograd.Function):
    """One exchange forward, another backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, group: dist.ProcessGroup, there: Exchange, back: Exchange
    ) -> Tensor:
        ctx.group, ctx.back = group, back
        return there(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.back(grad, ctx.group), None, None, None


def _exchange(x: Tensor, group: dist.ProcessGroup, there: Exchange, back: Exchange) -> Tensor:
    result: Tensor = _Exchange.apply(x, group, there, back)
    return result


def gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """All-gather forward, reduce-scatter backward: for work that is split over ranks."""
    return _exchange(x, group, _gathered, _scattered_sum)


def reduce_scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Reduce-scatter forward, all-gather backward."""
    return _exchange(x, group, _scattered_sum, _gathered)


def split(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """This rank's part forward, all-gather backward: of a tensor that all ranks hold alike."""
    return _exchange(x, group, _own_part, _gathered)


def whole(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """All-gather forward, this rank's part backward: for work that all ranks repeat."""
    return _exchange(x, group, _gathered, _own_part)
