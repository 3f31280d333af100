"""Tensor-parallel shard of each parameter: offset and extent in the full tensor."""

import math
from dataclasses import dataclass

from torch import nn

from model.networks.base import Network
from pretrain.parallel.ranges import FlatRange, OwnedRange


@dataclass(frozen=True, kw_only=True)
class ParameterShard:
    """Shape of a full parameter, and the box of it that this rank holds."""

    name: str
    shape: tuple[int, ...]
    corner: tuple[int, ...]
    sizes: tuple[int, ...]
    is_copy: bool

    @property
    def part(self) -> FlatRange:
        """The shard as a range."""
        return self._range(0, math.prod(self.sizes))

    def owned_range(self, start: int, num: int, group: int, offset: int) -> OwnedRange:
        """The range [start, start + num) of the flattened shard."""
        shards = self._range(start, num)
        return OwnedRange(range=shards, group=group, offset=offset, is_copy=self.is_copy)

    def _range(self, start: int, num: int) -> FlatRange:
        return FlatRange(
            name=self.name,
            shape=self.shape,
            corner=self.corner,
            sizes=self.sizes,
            start=start,
            num=num,
        )


def places(denoiser: Network, tensor_rank: int = 0) -> dict[nn.Parameter, ParameterShard]:
    """The shard of each parameter; to be called before DeepSpeed changes their shapes.

    Args:
        tensor_rank: of this rank, on the tensor axis.
    """
    found = {}
    tied_copy = denoiser.config.shares_embedding and 0 not in denoiser.span
    for parameter, name in denoiser.parameter_names().items():
        sizes = tuple(parameter.shape)
        shape = tuple(denoiser.factory.whole_shape(parameter))
        corner = tuple(tensor_rank * n if n != m else 0 for n, m in zip(sizes, shape, strict=True))
        replicated = shape == sizes and tensor_rank > 0
        tied = tied_copy and name == "layers.0.tokens.weight"
        found[parameter] = ParameterShard(
            name=name, shape=shape, corner=corner, sizes=sizes, is_copy=replicated or tied
        )
    return found
