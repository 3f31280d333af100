"""Heartbeat of a run: its status file is touched while the first rank's process lives."""

import contextlib
import os

from configs.run_files import BEAT_S
from pretrain.launch.periodic import Periodic
from pretrain.run.directory import RunDirectory


class Heartbeat(Periodic):
    """Touches status.json every :data:`BEAT_S` seconds, until a newer attempt begins."""

    def __init__(self, directory: RunDirectory, attempt: int) -> None:
        super().__init__("heartbeat", BEAT_S)
        self._directory, self._attempt = directory, attempt

    def tick(self) -> None:
        """Touch the file."""
        if self._directory.superseded(self._attempt):
            self.stop()
            return
        # The file system is away, or there is no status yet: the next tick tries again.
        with contextlib.suppress(OSError):
            os.utime(self._directory.status)
