"""Hooks: callbacks at fixed points of a run, for tests and tools that watch or disturb it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.trainer import Trainer


class Hook:
    """Callbacks that do nothing; a subclass overrides those that it wants.

    Every rank calls its own hooks. What one raises ends the run, as an error of the trainer does.
    The names are those of ``transformers.TrainerCallback``.
    """

    def on_init_end(self, trainer: "Trainer") -> None:
        """The trainer is built and resumed; still within the watchdog's patience for a start."""

    def on_step_end(self, trainer: "Trainer") -> None:
        """A step was taken, its row written; validation and save of this step come after."""

    def on_commit(self, trainer: "Trainer") -> None:
        """A checkpoint is about to be committed: on the first rank, in the committing thread."""

    def on_train_end(self, trainer: "Trainer") -> None:
        """The last checkpoint is committed and the status written; loggers are still open."""


Hooks = Sequence[Hook]
