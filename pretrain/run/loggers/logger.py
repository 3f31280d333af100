"""What every logger is: something that takes the rows of metrics.jsonl as they are written.

That file is the source of truth and no logger of this kind. A logger opens at the step from
which a run goes on and must not show what came after it, so that no step is there twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pretrain.run.metrics import Row


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a logger may know when it opens.

    Args:
        directory: the run's. step: from which it goes on; 0 at its beginning.
        config: the run's, as plain data. rows: reads the rows up to that step.
    """

    directory: Path
    step: int
    config: Mapping[str, Any]
    rows: Callable[[], list[Row]]


class Logger(Protocol):
    """Whatever it raises switches it off, and never ends a run."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self) -> None:
        """The run ends, or this start of it."""
