"""An attempt: one start of a run, and its right to write the run's status.

Attempts are numbered. Once a newer one has begun, an older one that still computes somewhere (on
a node that a scheduler has lost contact with) is no longer part of the run.
"""

from dataclasses import dataclass

from configs.errors import RunError
from pretrain.run.directory import RunDirectory, State


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a run, on one rank.

    Args:
        directory: of the run.
        number: counted from 1 over the starts of the run; the same on all ranks.
        writes: whether this rank writes for all of them.
    """

    directory: RunDirectory
    number: int
    writes: bool

    def require_newest(self) -> None:
        """RunError, on the rank that writes, once a newer attempt has begun."""
        if self.writes and self.directory.superseded(self.number):
            raise RunError(f"a newer attempt than {self.number} has begun; this one leaves")

    def write_status(self, state: State, step: int, reason: str = "") -> None:
        """Write status.json, on the rank that writes."""
        if self.writes:
            self.directory.write_status(state, step, self.number, reason)
