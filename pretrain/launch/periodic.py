"""A thread that does something every few seconds for as long as a context lasts."""

import threading
from abc import ABC, abstractmethod
from typing import Self


class Periodic(ABC):
    """A context manager with a daemon thread that calls :meth:`tick` until the context ends.

    Args:
        name: of the thread.
        every: seconds between calls; 0 for none at all.
    """

    def __init__(self, name: str, every: float) -> None:
        self._name, self._every = name, every
        self._ended = threading.Event()

    @abstractmethod
    def tick(self) -> None:
        """Called every ``every`` seconds."""

    def stop(self) -> None:
        """No more calls."""
        self._ended.set()

    def __enter__(self) -> Self:
        if self._every:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.tick()
