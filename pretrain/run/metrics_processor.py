"""Writes each row of metrics to metrics.jsonl and to the loggers, on the rank that writes."""

from pretrain.config import RunConfig
from pretrain.run import console
from pretrain.run.directory import RunDirectory
from pretrain.run.loggers import Loggers
from pretrain.run.metrics import Metrics, Row, read_rows


class MetricsProcessor:
    """All sinks of a run's metrics as one; on ranks that do not write it does nothing.

    Args:
        step: from which the run goes on.
        saved_rows: rows of metrics.jsonl when the checkpoint of that step was saved, if known.
        writes: whether this rank writes for all of them.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        step: int,
        saved_rows: int | None,
        *,
        writes: bool,
    ) -> None:
        self._metrics: Metrics | None = None
        self._loggers: Loggers | None = None
        if not writes:
            return
        self._metrics = Metrics(directory.metrics, step, saved_rows)
        for line in self._metrics.warnings:
            console.log(line)
        self._loggers = Loggers(
            config, directory.path, step, lambda: read_rows(directory.metrics), console.log
        )

    @property
    def num_rows(self) -> int | None:
        """Rows of metrics.jsonl; None on ranks that do not write it."""
        return self._metrics.num_rows if self._metrics else None

    def write(self, row: Row) -> None:
        """Append one row to metrics.jsonl, then give it to every logger."""
        if self._metrics and self._loggers:
            self._metrics.write(row)
            self._loggers.write(row)

    def to_disk(self) -> None:
        """See :meth:`Metrics.to_disk`."""
        if self._metrics:
            self._metrics.to_disk()

    def close(self) -> None:
        """Close metrics.jsonl and the loggers."""
        if self._metrics and self._loggers:
            self._metrics.close()
            self._loggers.close()
