"""RUN/tensorboard: event files for TensorBoard, one for each start of the run.

Each records the step from which it counts, and TensorBoard leaves out the rows of earlier files
from that step on (``purge_step``).
"""

from pretrain.run.loggers.logger import Opening
from pretrain.run.metrics import Row

DIRECTORY = "tensorboard"


class TensorboardEvents:
    """The event file of one start."""

    def __init__(self, opening: Opening) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(opening.directory / DIRECTORY), purge_step=opening.step + 1
        )

    def write(self, row: Row) -> None:
        """Write every number of a row at its step, and flush: a crash after this loses none."""
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
