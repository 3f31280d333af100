"""Parameters that are not trained, as a rank holds them: fp32 values beside the masters.

DeepSpeed's optimizers know nothing of them. Their exact values lie in one flat tensor, of each
parameter an even part on every data-parallel rank, so that checkpoints hold them as they hold
all others; the weights that the network computes with follow from these.
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
    """This rank's parts.

    Args:
        where: all parameters of the rank, by DeepSpeed's engine cut (ZeRO 3) or whole.
        group: the number of :attr:`flats` behind those of the trained parameters.
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
        """What lies where in the flat tensor."""
        return (owned_range for owned_range in self._parts.values() if owned_range.range.num)

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the network's weights follow from the values; all data-parallel ranks together."""
        for parameter in self._parts:
            value = self._part(parameter)
            if hasattr(parameter, "ds_tensor"):
                parameter.ds_tensor.data.narrow(0, 0, len(value)).copy_(value)
            else:
                parameter.copy_(self._gathered(value, parameter))

    def gather(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give parameters without values theirs; all data-parallel ranks together."""
        for parameter in parameters:
            parameter.data = self._gathered(self._part(parameter).to(parameter.dtype), parameter)

    @staticmethod
    def release(parameters: Iterable[nn.Parameter]) -> None:
        """Take the values of parameters away, until they are gathered again."""
        for parameter in parameters:
            parameter.data = parameter.data.new_empty(0)

    def _part(self, parameter: nn.Parameter) -> Tensor:
        """What this rank has of it, ``[num]``."""
        owned_range = self._parts[parameter]
        return self.flats[0].narrow(0, owned_range.offset, owned_range.range.num)

    def _gathered(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """All ranks' parts of one parameter, of which ``value`` is this one's, in its shape."""
        sizes, size = self._parts[parameter].range.sizes, self._mesh.data_size
        if size == 1:
            return value.view(sizes)
        num = math.prod(sizes)
        parts = value.new_zeros(size, _even(num, size))
        parts[self._mesh.data_rank, : len(value)] = value
        dist.all_gather(list(parts), parts[self._mesh.data_rank].clone(), self._mesh.data_group)
        return parts.view(-1)[:num].view(sizes)


def _even(num: int, size: int) -> int:
    """What each of ``size`` ranks has of ``num`` elements, the last ones perhaps less."""
    return -(-num // size)
