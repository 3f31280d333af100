"""Scripted draws: a weighted sum over all cases is an exact expectation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from model.draws import Draws


@dataclass(frozen=True, kw_only=True, eq=False)
class Scripted(Draws):
    """At stream position r, row r of what it was given, whatever the draw is for.

    Args:
        time_B1: times, ``[B, num]`` where there are several of a sample.
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
