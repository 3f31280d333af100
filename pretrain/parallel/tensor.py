"""Tensor parallelism: the layer factory that builds shards, from megatron-core's layers.

Column layers hold rows of their matrix, row layers columns, embedding and head rows of
the vocabulary (Shoeybi et al. 2019, section 3). One copy-and-reduce stands before each
group of column layers, not in each of them: q, k and v share it.

Parameters carry Megatron's ``tensor_model_parallel`` and ``partition_dim``, by which
DeepSpeed counts replicated parameters once in the gradient norm. Megatron would set them
while it initialises; our weights are drawn whole by name, and cut here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.linears import Head
from pretrain.parallel import megatron, sequence
from pretrain.parallel.mesh import Mesh


class TensorFactory:
    """Shards of the wide layers, over the tensor axis of a mesh.

    Args:
        sequence_parallel: also keep only this rank's positions of the stream.
    """

    def __init__(self, mesh: Mesh, *, sequence_parallel: bool) -> None:
        self.group, self.rank, self.size = mesh.tensor_group, mesh.tensor_rank, mesh.tensor_size
        self.sequence_parallel = sequence_parallel
        megatron.use(mesh.tensor_group)

    # -- layers ---------------------------------------------------------------------------

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """Its outputs are split; it does not communicate."""
        layer = Column(num_in, num_out, bias=bias, group=self.group)
        _mark(layer.weight, 0)
        return layer

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """Its inputs are split; its output is summed, and then as the stream is."""
        layer = Row(num_in, num_out, bias=bias, factory=self)
        _mark(layer.weight, 1)
        return layer

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """Split over the ranks where the groups divide; else whole on each, used in part."""
        if num_groups % self.size == 0:
            return self.column(num_in, num_groups * head_width, bias=bias)
        mine = num_heads // self.size
        first = self.rank * mine
        groups = [head * num_groups // num_heads for head in range(first, first + mine)]
        return WholeGroups(num_in, num_groups, head_width, groups, bias=bias)

    def share(self, value: Tensor) -> Tensor:
        """The value; its gradient is summed over the ranks, each of which used it in part."""
        return megatron.copy_forward_sum_backward(value)

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """Each rank looks up the ids of its rows; the output is whole on every rank."""
        layer = megatron.VocabParallelEmbedding(
            num_rows,
            width,
            init_method=megatron.no_initialization,
            config=megatron.settings(),
            tp_group=self.group,
        )
        _mark(layer.weight, 0)
        return layer

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """Logits of this rank's rows."""
        layer = ShardedHead(
            width,
            num_rows // self.size,
            excluded.chunk(self.size)[self.rank],
            bias=bias,
            group=self.group,
        )
        _mark(layer.weight, 0)
        if layer.bias is not None:
            _mark(layer.bias, 0)
        return layer

    # -- the stream -----------------------------------------------------------------------

    def cut(self, x_BLD: Tensor) -> Tensor:
        """This rank's positions of what all ranks hold alike."""
        if not self.sequence_parallel:
            return x_BLD
        return sequence.split(x_BLD, self.group)

    def enter(self, x_BLD: Tensor) -> Tensor:
        """All positions; backward sums what the ranks' shards give."""
        if self.sequence_parallel:
            return sequence.gather(x_BLD, self.group)
        return megatron.copy_forward_sum_backward(x_BLD)

    def leave(self, partial_BLD: Tensor) -> Tensor:
        """The sum of the ranks' partial products, at this rank's positions."""
        if self.sequence_parallel:
            return sequence.reduce_scatter(partial_BLD, self.group)
        return megatron.sum_forward_copy_backward(partial_BLD)

    def spread(self, value: Tensor) -> Tensor:
        """The value; where positions are split, its gradient is put together from all."""
        if not self.sequence_parallel:
            return value
        if value.dim() == 3 and value.shape[1] > 1:
            return sequence.split(value, self.group)
        return megatron.copy_forward_sum_backward(value)

    def whole(self, x_BLD: Tensor) -> Tensor:
        """The stream at all positions."""
        if not self.sequence_parallel:
            return x_BLD
        return sequence.whole(x_BLD, self.group)

    @contextmanager
    def all_positions(self) -> Iterator[None]:
        """The stream uncut meanwhile."""
        before, self.sequence_parallel = self.sequence_parallel, False
        try:
            yield
        finally:
            self.sequence_parallel = before

    def rows(self, num_here: int) -> "ShardedRows":
        """Each rank has R / T of them."""
        return ShardedRows(self.group, num_here)

    # -- parameters -----------------------------------------------------------------------

    def whole_shape(self, parameter: Tensor) -> torch.Size:
        """The shape over all ranks."""
        shape = list(parameter.shape)
        if is_sharded(parameter):
            shape[partition_dim(parameter)] *= self.size
        return torch.Size(shape)

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """This rank's rows or columns."""
        if not is_sharded(parameter):
            return whole
        return whole.chunk(self.size, dim=partition_dim(parameter))[self.rank]


def is_sharded(parameter: Tensor) -> bool:
    """Whether a parameter is split over the tensor-parallel ranks."""
    return bool(getattr(parameter, "tensor_model_parallel", False))


def partition_dim(parameter: Tensor) -> int:
    """The dimension along which a sharded parameter is cut."""
    return int(parameter.partition_dim)  # type: ignore[attr-defined]


def _mark(parameter: Any, dim: int) -> None:
    parameter.tensor_model_parallel = True
    parameter.partition_dim = dim
    parameter.partition_stride = 1


class Column(megatron.ColumnParallelLinear):
    """Megatron's column-parallel linear layer, which returns its output only."""

    def __init__(self, num_in: int, num_out: int, *, bias: bool, group: dist.ProcessGroup) -> None:
        super().__init__(
            num_in,
            num_out,
            **megatron.linear_arguments(),
            bias=bias,
            gather_output=False,
            disable_grad_reduce=True,  # TensorFactory.enter does it, once for q, k and v
            tp_group=group,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out / T]``."""
        output: Tensor = super().forward(x)[0]
        return output


class WholeGroups(nn.Linear):
    """Keys or values of fewer heads than ranks: every rank holds all, and computes its own.

    Args:
        groups: of each of this rank's queries, the head that it shares.
    """

    def __init__(
        self, num_in: int, num_groups: int, head_width: int, groups: list[int], *, bias: bool
    ) -> None:
        super().__init__(num_in, num_groups * head_width, bias=bias)
        self.used = sorted(set(groups))
        self.head_width = head_width
        # Where the rank's queries share their heads unevenly, each gets its own copy.
        counts = {groups.count(group) for group in self.used}
        self.copies = [self.used.index(group) for group in groups] if len(counts) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, in]`` to the heads that this rank's queries need."""
        rows = slice(self.used[0] * self.head_width, (self.used[-1] + 1) * self.head_width)
        weight = megatron.copy_forward_sum_backward(self.weight)[rows]
        bias: Tensor | None = self.bias
        if bias is not None:
            bias = megatron.copy_forward_sum_backward(bias)[rows]
        heads = F.linear(x, weight, bias)
        if self.copies is None:
            return heads
        return heads.unflatten(-1, (-1, self.head_width))[..., self.copies, :].flatten(-2)


class Row(megatron.RowParallelLinear):
    """Megatron's row-parallel linear layer; its sum may be reduce-scattered over positions."""

    def __init__(self, num_in: int, num_out: int, *, bias: bool, factory: TensorFactory) -> None:
        super().__init__(
            num_in,
            num_out,
            **megatron.linear_arguments(),
            bias=bias,
            input_is_parallel=True,
            skip_bias_add=False,
            tp_group=factory.group,
        )
        self.factory = factory

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, in / T]`` to the stream."""
        output = self.factory.leave(F.linear(x, self.weight))
        return output if self.bias is None else output + self.factory.spread(self.bias)


class ShardedHead(Head):
    """The head over this rank's rows of the vocabulary."""

    def __init__(
        self,
        width: int,
        num_rows: int,
        excluded: Tensor,
        *,
        bias: bool,
        group: dist.ProcessGroup,
    ) -> None:
        super().__init__(width, num_rows, excluded, bias=bias)
        self._group = group

    def enter(self, hidden_MD: Tensor) -> Tensor:
        """All ranks have the same vectors, and a part of their gradients each."""
        return megatron.copy_forward_sum_backward(hidden_MD)

    def mean(self, logits_MR: Tensor) -> Tensor:
        """The ranks' sums of weights, and of weighted rows, are added."""
        largest_M1 = logits_MR.detach().amax(dim=-1, keepdim=True)
        dist.all_reduce(largest_M1, dist.ReduceOp.MAX, group=self._group)
        weight_MR = (logits_MR - largest_M1).exp()
        total_M1 = megatron.sum_forward_copy_backward(weight_MR.sum(dim=-1, keepdim=True))
        return megatron.sum_forward_copy_backward(weight_MR @ self.weight.float()) / total_M1


class ShardedRows:
    """This rank's part of a vocabulary that is split over the tensor axis.

    Args:
        num_here: rows on this rank, as many as on every other.
    """

    def __init__(self, group: dist.ProcessGroup, num_here: int) -> None:
        self.first, self.num = group.rank() * num_here, group.size() * num_here
        self._group = group

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks; the gradient passes as it is."""
        return megatron.sum_forward_copy_backward(x)

    def copy(self, x: Tensor) -> Tensor:
        """The argument; its gradient is summed over ranks."""
        return megatron.copy_forward_sum_backward(x)

    def largest(self, x: Tensor) -> Tensor:
        """The maximum over ranks, without gradient."""
        largest = x.detach().clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._group)
        return largest

    def gather(self, x_MR: Tensor) -> Tensor:
        """The rows of all ranks ``[M, num]``, without gradient."""
        x_MR = x_MR.detach().contiguous()
        parts = [torch.empty_like(x_MR) for _ in range(self._group.size())]
        dist.all_gather(parts, x_MR, group=self._group)
        return torch.cat(parts, dim=-1)

    def best(self, scores_MR: Tensor) -> Tensor:
        """The ranks' best candidates meet."""
        best_M, row_M = scores_MR.max(dim=-1)
        bests = [torch.empty_like(best_M) for _ in range(self._group.size())]
        rows = [torch.empty_like(row_M) for _ in range(self._group.size())]
        dist.all_gather(bests, best_M, group=self._group)
        dist.all_gather(rows, row_M + self.first, group=self._group)
        winner_1M = torch.stack(bests).argmax(dim=0, keepdim=True)
        return torch.stack(rows).gather(0, winner_1M)[0]

    def log_prob(self, logits_MR: Tensor, ids_M: Tensor) -> Tensor:
        """log p of one id at each position, ``[M]`` float32, with gradient, on every rank."""
        # A copy, since Megatron works in place on logits that are float32 already.
        return -megatron.cross_entropy(logits_MR.to(torch.float32, copy=True), ids_M)
