"""What is not finite: gradients, whose steps are skipped, and weights, which are never saved.

DeepSpeed skips a step whose gradient is not finite; too many in a row end the run. Weights
can overflow by a finite gradient too: by a step that is too long, by an Adam whose ``eps`` is 0.
Where the loss is not finite, the weights are of no use, be they finite: they displace no others.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from configs.errors import RunError
from pretrain.parallel.ranges import OwnedRange


class NonFiniteError(RunError):
    """Gradients were not finite too often, or the weights are not."""


def non_finite(
    kinds: Mapping[str, Sequence[Tensor]], owned_ranges: Sequence[OwnedRange]
) -> str | None:
    """The first parameter of a kind (master, exp_avg, ...) that is not finite; None if all are.

    Args:
        kinds: of each kind this rank's flat tensors. fragments: what lies where in them; what
            lies between them is padding.
    """
    for kind, flats in kinds.items():
        if all(_is_finite(flat) for flat in flats):
            continue
        for owned_range in owned_ranges:
            if owned_range.is_in(flats) and not _is_finite(owned_range.of(flats)):
                return f"{kind} of {owned_range.range.name}"
    return None


def _is_finite(values: Tensor) -> bool:
    """Whether all are, without a copy of them."""
    if not values.numel():
        return True
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())


class NonFiniteGuard:
    """Counts skipped steps in a row.

    Args:
        limit: so many in a row end the run; batch: samples of a step, to name the culprits.
    """

    def __init__(self, limit: int, batch: int) -> None:
        self._limit, self._batch = limit, batch
        self.skipped_in_a_row = 0
        self.loss_is_lost = False

    def check(self, step: int, skipped: bool, has_loss: bool) -> str | None:
        """What to tell the user of a step that was skipped.

        Args:
            has_loss: whether the loss over all ranks is finite.

        Raises:
            NonFiniteError: that was one too many.
        """
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        self.loss_is_lost = not has_loss
        if not skipped:
            return None
        last = step * self._batch
        first = last - self.skipped_in_a_row * self._batch
        where = f"stream positions {first} to {last - 1}"
        if self.skipped_in_a_row >= self._limit:
            raise NonFiniteError(
                f"the gradient was not finite {self.skipped_in_a_row} steps in a row ({where}); "
                "lower optim.lr, or look at these samples"
            )
        return f"step {step}: the gradient is not finite, skipped ({where})"

    def require_loss(self, step: int) -> None:
        """NonFiniteError where a run would end with weights that give no loss, finite or not.

        In fp16 a gradient overflows now and then, and its loss is finite.
        """
        if self.loss_is_lost:
            raise NonFiniteError(
                f"the loss of step {step} is not finite, and its weights were not saved; begin a "
                "new run with a lower optim.lr, from the newest checkpoint (fork_from=) if there "
                "is one"
            )
