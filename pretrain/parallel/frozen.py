"""Parameters that are not trained, as a rank holds them: fp32 values beside the masters.

DeepSpeed's optimizers know nothing of them. Their exact values lie in one flat tensor, of each
parameter an even part on every data-parallel rank, so that checkpoints hold them as they hold
all others; the weights that the network computes with follow from these.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.parallel.mesh import Mesh
from pretrain.parallel.places import Place
from pretrain.ranges import Fragment


class Frozen:
    """This rank's parts.

    Args:
        where: all parameters of the rank, by DeepSpeed's engine cut (ZeRO 3) or whole.
        group: the number of :attr:`flats` behind those of the trained parameters.
    """

    def __init__(self, where: Mapping[nn.Parameter, Place], mesh: Mesh, group: int) -> None:
        self._mesh = mesh
        self._parts: list[tuple[nn.Parameter, Fragment]] = []
        offset = 0
        for parameter, place in where.items():
            if parameter.requires_grad:
                continue
            size = _even(place.part.num, mesh.data_size)
            start = min(mesh.data_rank * size, place.part.num)
            num = min(size, place.part.num - start)
            self._parts.append((parameter, place.fragment(start, num, group, offset)))
            offset += num
        values = torch.zeros(offset, device=mesh.device)
        self.flats = [values] if self._parts else []

    @property
    def fragments(self) -> Iterator[Fragment]:
        """What lies where in the flat tensor."""
        return (fragment for _, fragment in self._parts if fragment.range.num)

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the network's weights follow from the values; all data-parallel ranks together."""
        for parameter, fragment in self._parts:
            value = self.flats[0].narrow(0, fragment.offset, fragment.range.num)
            if hasattr(parameter, "ds_tensor"):
                parameter.ds_tensor.data.narrow(0, 0, len(value)).copy_(value)
            else:
                whole = self._gathered(value, parameter.numel())
                parameter.copy_(whole.view(parameter.shape))

    def _gathered(self, value: Tensor, num: int) -> Tensor:
        """All ranks' parts of one parameter, ``[num]``."""
        size = self._mesh.data_size
        if size == 1:
            return value
        parts = value.new_zeros(size, _even(num, size))
        parts[self._mesh.data_rank, : len(value)] = value
        dist.all_gather(list(parts), parts[self._mesh.data_rank].clone(), self._mesh.data_group)
        return parts.view(-1)[:num]


def _even(num: int, size: int) -> int:
    """What each of ``size`` ranks has of ``num`` elements, the last ones perhaps less."""
    return -(-num // size)
