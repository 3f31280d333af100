"""The interface of loggers: they receive the rows of metrics.jsonl as they are written.

That file itself is the source of truth and not such a logger. A logger opens at the step from
which a run goes on and must not show later rows of earlier starts, so that no step appears twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pretrain.run.metrics import Row


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Arguments of a logger.

    Args:
        directory: of the run.
        step: from which the run goes on; 0 at its beginning.
        config: of the run, as plain data.
        rows: reads the rows of metrics.jsonl up to that step.
    """

    directory: Path
    step: int
    config: Mapping[str, Any]
    rows: Callable[[], list[Row]]


class Logger(Protocol):
    """A logger; an exception that it raises switches it off, and never ends a run."""

    def write(self, row: Row) -> None:
        """Log one row."""

    def close(self) -> None:
        """Close the logger at the end of a start."""
