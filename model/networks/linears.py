"""Layer factory: the interface through which tensor parallelism enters the model.

Networks build their wide layers through a factory and do not depend on whether these are full
or sharded. Column-parallel layers split their outputs, row-parallel layers their inputs
(Shoeybi et al. 2019, Megatron-LM, section 3); the factory in this file splits nothing.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.categorical import AllRows, Rows

Give = Literal["logits", "nearest", "mean"]


class LayerFactory(Protocol):
    """Builds the layers of a network. All layers map ``[..., in]`` to ``[..., out]``.

    With sequence parallelism each rank keeps only some positions of the stream; :meth:`cut`,
    :meth:`enter`, :meth:`spread` and :meth:`whole` then convert between the two forms, each
    with the backward pass that makes every gradient complete.
    """

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A column-parallel linear layer: outputs may be split over ranks."""

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A row-parallel linear layer: inputs may be split; the output is complete on each rank."""

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """Projection to the key or value heads for this rank's share of ``num_heads`` query heads.

        There are ``num_groups`` key/value heads over all ranks. On each rank, consecutive query
        heads share one, and the number of key/value heads divides that of query heads.
        """

    def share(self, value: Tensor) -> Tensor:
        """A weight that is replicated over ranks and applied by each to its own heads."""

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """Embedding from ids ``[B, L]`` to ``[B, L, width]``; ``.weight`` ``[num_rows, width]``."""

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """Head from ``[M, width]`` to logits ``[M, num_rows]``, -inf where ``excluded``."""

    def cut(self, x_BLD: Tensor) -> Tensor:
        """Scatter: from a replicated stream to this rank's positions."""

    def enter(self, x_BLD: Tensor) -> Tensor:
        """Gather all positions of the stream, as input of column-parallel layers."""

    def spread(self, value: Tensor) -> Tensor:
        """A replicated value (a gain, a condition ``[B, K, D]``), for use on this rank's stream."""

    def whole(self, x_BLD: Tensor) -> Tensor:
        """Gather all positions of the stream, for work that is replicated on every rank."""

    def rows(self, num_here: int) -> Rows:
        """The sharding of the head's vocabulary rows, ``num_here`` of which are this rank's."""

    def all_positions(self) -> AbstractContextManager[None]:
        """Context in which positions are not split, for windows and prompts of any length."""

    def whole_shape(self, parameter: Tensor) -> torch.Size:
        """The unsharded shape of a parameter."""

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """This rank's shard of a parameter, given its unsharded value ``whole``."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _exclusion(
    rows: tuple[int, ...], num_rows: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Offset of the logits, ``[R]``: -inf at the excluded rows, else 0.

    It is not a module buffer: a non-persistent buffer is lost when a model is built on the meta
    device and filled from a state dict, and a persistent one would be saved though no weight.
    """
    added = torch.zeros(num_rows, device="cpu")
    added[list(rows)] = -torch.inf
    return added.to(device, dtype)


class Head(nn.Module):
    """Linear head whose bias includes -inf at the excluded rows, at no extra cost.

    The gradient at an excluded row is exactly zero, since its probability is.

    Args:
        excluded: rows that are never predicted, bool ``[R]`` on the CPU.
    """

    def __init__(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_rows, width))
        self.bias = nn.Parameter(torch.empty(num_rows)) if bias else None
        self.excluded = tuple(excluded.nonzero()[:, 0].tolist())

    def exclusion(self, dtype: torch.dtype) -> Tensor:
        """Offset of the logits, ``[R]``: -inf at the excluded rows, else 0."""
        return _exclusion(self.excluded, len(self.weight), self.weight.device, dtype)

    def forward(self, hidden_MD: Tensor, *, give: Give = "logits") -> Tensor:
        """Logits ``[M, R]``, or in float32 nearest-row scores or the mean row.

        Args:
            give: ``logits``; ``nearest``, scores ``[M, R]`` that are highest at the row nearest
                to the vector (half of squared length minus squared distance); or ``mean``, the
                mean of the rows ``[M, D]`` under the softmax of the logits.
        """
        hidden_MD = self.enter(hidden_MD)
        if give == "nearest":
            table_RD = self.weight.float()
            offset_R = self.exclusion(torch.float32) - 0.5 * table_RD.square().sum(dim=1)
            return F.linear(hidden_MD.float(), table_RD, offset_R)
        offset_R = self.exclusion(self.weight.dtype)
        if self.bias is not None:
            offset_R = self.bias + offset_R
        logits_MR = F.linear(hidden_MD, self.weight, offset_R)
        return logits_MR if give == "logits" else self.mean(logits_MR.float())

    def enter(self, hidden_MD: Tensor) -> Tensor:
        """The head's input; a hook for sharded heads."""
        return hidden_MD

    def mean(self, logits_MR: Tensor) -> Tensor:
        """Mean of the weight's rows ``[M, D]`` under the softmax of the logits."""
        return logits_MR.softmax(dim=-1) @ self.weight.float()


class DenseFactory:
    """The layer factory for one device: nothing is sharded."""

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_out, bias=bias)

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_out, bias=bias)

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """A plain linear layer."""
        return nn.Linear(num_in, num_groups * head_width, bias=bias)

    def share(self, value: Tensor) -> Tensor:
        """Identity."""
        return value

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """A plain embedding."""
        return nn.Embedding(num_rows, width)

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """A plain head."""
        return Head(width, num_rows, excluded, bias=bias)

    def cut(self, x_BLD: Tensor) -> Tensor:
        """Identity."""
        return x_BLD

    def enter(self, x_BLD: Tensor) -> Tensor:
        """Identity."""
        return x_BLD

    def spread(self, value: Tensor) -> Tensor:
        """Identity."""
        return value

    def whole(self, x_BLD: Tensor) -> Tensor:
        """Identity."""
        return x_BLD

    def rows(self, num_here: int) -> Rows:
        """All rows of the vocabulary on this rank."""
        return AllRows(num_here)

    def all_positions(self) -> AbstractContextManager[None]:
        """A null context: positions are never split."""
        return nullcontext()

    def whole_shape(self, parameter: Tensor) -> torch.Size:
        """The parameter's shape."""
        return parameter.shape

    def part(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """The full value."""
        return whole
