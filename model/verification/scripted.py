"""Scripted random draws, to compute exact expectations as weighted sums over all cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from model.draws import Draws


@dataclass(frozen=True, kw_only=True, eq=False)
class Scripted(Draws):
    """Draws that return given values: at stream position r row r, for any kind of uniform draw.

    Args:
        time_B1: times, ``[B, num]`` if there are several per sample.
        uniform_BL: uniforms; normals: standard normals ``[B, num]`` by kind.
    """

    seed: int = 0
    split: str = "scripted"
    batch: int = 1
    time_B1: Tensor
    uniform_BL: Tensor
    normals: Mapping[str, Tensor] = field(default_factory=dict)

    def times(self, position_B: Tensor, kind: str = "time", num: int = 1) -> Tensor:
        """See :meth:`model.draws.Draws.times`."""
        return self.time_B1[position_B, :num]

    def uniform(self, kind: str, position_B: Tensor, num: int) -> Tensor:
        """See :meth:`model.draws.Draws.uniform`."""
        return self.uniform_BL[position_B, :num]

    def normal(self, kind: str, position_B: Tensor, num: int) -> Tensor:
        """See :meth:`model.draws.Draws.normal`."""
        return self.normals[kind][position_B, :num]
