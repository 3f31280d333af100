"""Samplers: from pure noise to text, one published procedure per file.

A sampler is a plan of levels and a step from one level to the next; the loop over them,
which keeps the prompt in place, is :func:`model.generate.generate`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model.draws import Draws
from model.prediction import Read
from model.schedules import Schedule

Ask = Callable[[Tensor, Tensor, Tensor, Read[Tensor]], Tensor]
"""``(ids_BL, level_B1, where_BL, read)``: what ``read`` makes of the prediction at the true
positions of ``where_BL``."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One move of a sampler from level ``t`` down to level ``s``.

    Args:
        number: of the step, from 0: part of the key of every draw.
        t, s: the levels, float64 scalars, 0 <= s < t <= 1.
        mask: the id of [MASK].
        position_B: int64, which sample each row is; part of the key of every draw.
    """

    number: int
    t: Tensor
    s: Tensor
    mask: int
    position_B: Tensor
    schedule: Schedule
    draws: Draws


class Sampler(Protocol):
    """A plan and a step."""

    @property
    def steps(self) -> int:
        """Steps from pure noise to text."""

    def levels(self) -> Tensor:
        """The decreasing levels ``[steps + 1]``, from 1 to 0, float64."""

    def step(self, ids_BL: Tensor, step: Step, ask: Ask) -> Tensor:
        """The ids at the next level; the argument is left as it is."""
