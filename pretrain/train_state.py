"""The counters that a run carries from step to step, and that its checkpoints keep."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(kw_only=True)
class TrainState:
    """Counters of a run, the same on every rank; its fields are keys of ``state.json``.

    Masters, moments and averages are saved beside it (:mod:`pretrain.checkpoint.training`), and
    the state of the objective is held by :class:`pretrain.step.TrainingStep`.

    Args:
        step: training steps taken, skipped ones included.
        tokens_seen: tokens of text read by all ranks.
        optimizer_step: optimizer updates, which skipped steps do not make.
        skipped_in_a_row: steps skipped up to this one, their gradients not being finite.
        elapsed_s: seconds in the training loop, over all starts of the run.
        score: held-out number that ranks checkpoints (:data:`configs.run_files.SCORES`); None
            where this step was not validated.
        owes_validation: a request to stop came before the validation that was due at this step.
        metric_rows: rows of metrics.jsonl; None where it is not known.
    """

    step: int = 0
    tokens_seen: int = 0
    optimizer_step: int = 0
    skipped_in_a_row: int = 0
    elapsed_s: float = 0.0
    score: float | None = None
    owes_validation: bool = False
    metric_rows: int | None = None

    def begin_step(self) -> None:
        """Count one more step, which is not validated yet."""
        self.step += 1
        self.score = None

    def state_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take the fields over from plain data, which may hold more.

        Fields of :data:`ADDED_LATER` keep their defaults where an older version did not save them.
        """
        for field in fields(self):
            if field.name in saved or field.name not in ADDED_LATER:
                setattr(self, field.name, saved[field.name])


ADDED_LATER = ("score", "owes_validation", "metric_rows")
"""Fields that checkpoints of older versions lack; a checkpoint without another one is not whole."""

REQUIRED = tuple(field.name for field in fields(TrainState) if field.name not in ADDED_LATER)
"""Fields without which a run cannot be resumed."""
