"""Frozen parameters of a rank: flat fp32 values beside the masters.

DeepSpeed's optimizers do not handle them. Their exact values are in one flat tensor, with an even
part of each parameter on every data-parallel rank, so that checkpoints hold them as they hold
all others; the weights that the network computes with are made from these values.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.parallel.mesh import Mesh
from pretrain.parallel.ranges import OwnedRange
from pretrain.parallel.shards import ParameterShard


class Frozen:
    """This rank's parts of the frozen parameters.

    Args:
        where: all parameters of the rank, which ZeRO 3 may have partitioned.
        group: index of the flat tensor behind those of the trained parameters.
    """

    def __init__(
        self, where: Mapping[nn.Parameter, ParameterShard], mesh: Mesh, group: int
    ) -> None:
        self._mesh = mesh
        self._parts: dict[nn.Parameter, OwnedRange] = {}
        offset = 0
        for parameter, place in where.items():
            if parameter.requires_grad:
                continue
            size = _even(place.part.num, mesh.data_size)
            start = min(mesh.data_rank * size, place.part.num)
            num = min(size, place.part.num - start)
            self._parts[parameter] = place.owned_range(start, num, group, offset)
            offset += num
        values = torch.zeros(offset, device=mesh.device)
        self.flats = [values] if self._parts else []

    @property
    def owned_ranges(self) -> Iterator[OwnedRange]:
        """The ranges in the flat tensor."""
        return (owned_range for owned_range in self._parts.values() if owned_range.range.num)

    @torch.no_grad()
    def refresh(self) -> None:
        """Update the network's weights from the values; a collective of data-parallel ranks."""
        for parameter in self._parts:
            value = self._part(parameter)
            if hasattr(parameter, "ds_tensor"):
                parameter.ds_tensor.data.narrow(0, 0, len(value)).copy_(value)
            else:
                parameter.copy_(self._gathered(value, parameter))

    def gather(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gather the values of released parameters; a collective of data-parallel ranks."""
        for parameter in parameters:
            parameter.data = self._gathered(self._part(parameter).to(parameter.dtype), parameter)

    @staticmethod
    def release(parameters: Iterable[nn.Parameter]) -> None:
        """Free the values of parameters, until they are gathered again."""
        for parameter in parameters:
            parameter.data = parameter.data.new_empty(0)

    def _part(self, parameter: nn.Parameter) -> Tensor:
        """This rank's values of a parameter, ``[num]``."""
        owned_range = self._parts[parameter]
        return self.flats[0].narrow(0, owned_range.offset, owned_range.range.num)

    def _gathered(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """All-gather a parameter in its shape; ``value`` is this rank's part."""
        sizes, size = self._parts[parameter].range.sizes, self._mesh.data_size
        if size == 1:
            return value.view(sizes)
        num = math.prod(sizes)
        parts = value.new_zeros(size, _even(num, size))
        parts[self._mesh.data_rank, : len(value)] = value
        dist.all_gather(list(parts), parts[self._mesh.data_rank].clone(), self._mesh.data_group)
        return parts.view(-1)[:num].view(sizes)


def _even(num: int, size: int) -> int:
    """Elements of each of ``size`` ranks; the last ones may have fewer."""
    return -(-num // size)
