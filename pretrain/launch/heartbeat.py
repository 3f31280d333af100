"""A sign of life: the file of a run's status is touched while its first rank's process lives."""

import contextlib
import os
import threading
from types import TracebackType
from typing import Self

from configs.run_files import BEAT_S
from pretrain.run.directory import RunDirectory


class Heartbeat:
    """Touches status.json every few seconds from a thread, until a newer attempt owns it."""

    def __init__(self, directory: RunDirectory, attempt: int) -> None:
        self._directory, self._attempt = directory, attempt
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S) and not self._directory.superseded(self._attempt):
            # A file system that is away, or a status that is not there yet: it beats again.
            with contextlib.suppress(OSError):
                os.utime(self._directory.status)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
