"""Loggers beside metrics.jsonl: Weights & Biases, TensorBoard, CSV.

Each is a file of this package that imports its library only where the configuration asks for it.
A logger that fails, when it is opened or later, is switched off with one message; none can end a
run.
"""

from collections.abc import Callable
from pathlib import Path

from configs.load import to_plain
from pretrain.config import RunConfig
from pretrain.run.loggers.csv_file import CsvFile
from pretrain.run.loggers.logger import Logger, Opening
from pretrain.run.loggers.tensorboard_events import TensorboardEvents
from pretrain.run.loggers.wandb_run import WandbRun
from pretrain.run.metrics import Row


def _wanted(config: RunConfig) -> dict[str, Callable[[Opening], Logger]]:
    """The loggers that a configuration asks for, by the names of their packages."""
    found: dict[str, Callable[[Opening], Logger]] = {}
    if config.wandb.mode != "disabled":
        found["wandb"] = WandbRun
    if config.log.tensorboard:
        found["tensorboard"] = TensorboardEvents
    if config.log.csv:
        found["csv"] = CsvFile
    return found


class Loggers:
    """All loggers of a run as one.

    Args:
        step: from which the run goes on.
        rows: reads the rows of metrics.jsonl up to that step.
        log: prints a line for the user.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        step: int,
        rows: Callable[[], list[Row]],
        log: Callable[[str], None],
    ) -> None:
        self._log = log
        self._open: dict[str, Logger] = {}
        opening = Opening(directory=directory, step=step, config=to_plain(config), rows=rows)
        for name, kind in _wanted(config).items():
            try:
                self._open[name] = kind(opening)
            except Exception as error:
                self._off(name, error)

    def write(self, row: Row) -> None:
        """Write one row to every logger."""
        for name, logger in list(self._open.items()):
            try:
                logger.write(row)
            except Exception as error:
                self._off(name, error)

    def close(self) -> None:
        """Close every logger."""
        for name, logger in list(self._open.items()):
            try:
                logger.close()
            except Exception as error:
                self._off(name, error)

    def _off(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        hint = f"; pip install {name}" if isinstance(error, ImportError) else ""
        self._log(f"{name} is off: {type(error).__name__}: {error}{hint}")
