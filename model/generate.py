"""The sampling loop: from masks and a prompt to text, with any sampler."""

from collections.abc import Callable

from torch import Tensor

from model.draws import Draws
from model.prediction import Ask, Read
from model.query import Query
from model.samplers import Sampler, Step
from model.schedules import Schedule


class CountingAsk:
    """A denoiser as samplers see it, which counts its evaluations (NFE)."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.evaluations = 0

    def __call__(
        self, ids_BL: Tensor, level_B1: Tensor, where_BL: Tensor, read: Read[Tensor]
    ) -> Tensor:
        """One evaluation of the network."""
        self.evaluations += 1
        return self._ask(Query(ids_BL=ids_BL, level_BK=level_B1, where_BL=where_BL), read)


def generate(
    ids_BL: Tensor,
    position_B: Tensor,
    ask: CountingAsk,
    *,
    sampler: Sampler,
    schedule: Schedule,
    draws: Draws,
    mask: int,
    on_step: Callable[[Tensor], object] = lambda ids_BL: None,
) -> Tensor:
    """The ids ``[B, L]`` after the last step, when no [MASK] is left.

    Args:
        ids_BL: the start: [MASK] where text is wanted; every other id stays as it is.
        position_B: int64 number of each sample; it alone tells the samples' draws apart.
        on_step: called with the ids after every step.
    """
    levels = sampler.levels().to(ids_BL.device)
    for number in range(sampler.steps):
        step = Step(
            number=number,
            t=levels[number],
            s=levels[number + 1],
            mask=mask,
            position_B=position_B,
            schedule=schedule.exact(),
            draws=draws,
        )
        ids_BL = sampler.step(ids_BL, step, ask)
        on_step(ids_BL)
    return ids_BL
