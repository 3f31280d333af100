"""Steps whose gradient is not finite: DeepSpeed skips them, too many in a row end the run."""

from configs.errors import RunError


class NonFiniteError(RunError):
    """Too many steps in a row had a gradient that was not finite."""


class Guard:
    """Counts skipped steps in a row.

    Args:
        limit: so many in a row end the run; batch: samples of a step, to name the culprits.
    """

    def __init__(self, limit: int, batch: int) -> None:
        self._limit, self._batch = limit, batch
        self.skipped_in_a_row = 0

    def check(self, step: int, skipped: bool) -> str | None:
        """What to tell the user of a step that was skipped.

        Raises:
            NonFiniteError: that was one too many.
        """
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
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
