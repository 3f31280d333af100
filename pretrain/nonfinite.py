"""Non-finite values: steps with such gradients are skipped, such weights are never saved.

DeepSpeed skips a step whose gradient is not finite; too many in a row end the run. Weights can
overflow by finite gradients too, with a learning rate that is too high or Adam's ``eps`` of 0.
Finite weights whose loss is not finite are not saved either, so that they replace no others.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from configs.errors import RunError
from pretrain.parallel.ranges import OwnedRange
from pretrain.train_state import TrainState


class NonFiniteError(RunError):
    """Gradients were not finite too often, or the weights are not."""


def non_finite(
    kinds: Mapping[str, Sequence[Tensor]], owned_ranges: Sequence[OwnedRange]
) -> str | None:
    """Kind (master, exp_avg, ...) and name of a parameter that is not finite; None if all are.

    Args:
        kinds: by kind, this rank's flat tensors.
        owned_ranges: of the parameters in them; between the ranges is padding.
    """
    for kind, flats in kinds.items():
        if all(_is_finite(flat) for flat in flats):
            continue
        for owned_range in owned_ranges:
            if owned_range.is_in(flats) and not _is_finite(owned_range.of(flats)):
                return f"{kind} of {owned_range.range.name}"
    return None


def _is_finite(values: Tensor) -> bool:
    """Whether all values are finite, computed without a copy."""
    if not values.numel():
        return True
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())


class NonFiniteGuard:
    """Counts skipped steps in a row, and ends a run that skips too many.

    Args:
        state: holds the count, and the present step.
        limit: skipped steps in a row that end the run.
        batch: samples of a step, to name the stream positions that were skipped.

    Attributes:
        loss_is_lost: the loss of the last step was not finite.
    """

    def __init__(self, state: TrainState, limit: int, batch: int) -> None:
        self._state, self._limit, self._batch = state, limit, batch
        self.loss_is_lost = False

    def check(self, skipped: bool, has_loss: bool) -> str | None:
        """Count a step; returns a line for the user if it was skipped.

        Args:
            has_loss: whether the loss over all ranks is finite.

        Raises:
            NonFiniteError: ``limit`` steps in a row were skipped.
        """
        state = self._state
        state.skipped_in_a_row = state.skipped_in_a_row + 1 if skipped else 0
        self.loss_is_lost = not has_loss
        if not skipped:
            return None
        last = state.step * self._batch
        first = last - state.skipped_in_a_row * self._batch
        where = f"stream positions {first} to {last - 1}"
        if state.skipped_in_a_row >= self._limit:
            raise NonFiniteError(
                f"the gradient was not finite {state.skipped_in_a_row} steps in a row ({where}); "
                "lower optim.lr, or look at these samples"
            )
        return f"step {state.step}: the gradient is not finite, skipped ({where})"

    def require_loss(self) -> None:
        """NonFiniteError where a run would end with weights whose loss is not finite.

        In fp16 a gradient overflows now and then, and its loss is finite.
        """
        if self.loss_is_lost:
            raise NonFiniteError(
                f"the loss of step {self._state.step} is not finite, and its weights were not "
                "saved; begin a new run with a lower optim.lr, from the newest checkpoint "
                "(fork_from=) if there is one"
            )
