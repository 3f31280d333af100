"""The sampling loop: from masks and a prompt to text, with any sampler."""

from collections.abc import Callable

from torch import Tensor

from model.draws import Draws
from model.prediction import AnyPrediction, Prediction
from model.query import Query
from model.samplers import Sampler, Step
from model.schedules import Schedule


class CountingPredict:
    """A denoiser as samplers see it, which counts its evaluations (NFE)."""

    def __init__(self, predict: Callable[[Query], AnyPrediction]) -> None:
        self._predict = predict
        self.evaluations = 0

    def __call__(self, ids_BL: Tensor, level_B1: Tensor, where_BL: Tensor) -> Prediction:
        """One evaluation of the network."""
        self.evaluations += 1
        found = self._predict(Query(ids_BL=ids_BL, level_BK=level_B1, where_BL=where_BL))
        assert isinstance(found, Prediction)
        return found


def generate(
    ids_BL: Tensor,
    position_B: Tensor,
    predict: CountingPredict,
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
        ids_BL = sampler.step(ids_BL, step, predict)
        on_step(ids_BL)
    return ids_BL
