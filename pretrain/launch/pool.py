"""A pool of live ranks that run functions one after the other, for checks of many layouts.

Starting a rank takes seconds, creating a process group milliseconds. So the ranks of a pool stay
alive, and form a new group for every call, until they are replaced.
"""

import gc
import itertools
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from pretrain.launch import local as launch
from pretrain.launch import preemption
from pretrain.launch.local import World

WORN_OUT = 100
"""Threads above which a rank is replaced: DeepSpeed's ZeRO 3 keeps process groups alive, whose
threads go on polling and slow down every later call."""


class RankError(RuntimeError):
    """A rank of a pool failed; the message ends with its traceback."""


class Pool:
    """``size`` local ranks that stay alive between calls; a context manager."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._scratch = tempfile.TemporaryDirectory(prefix="palimpsest-")
        self._calls = itertools.count()
        self._ranks: list[tuple[BaseProcess, Connection]] = []
        self._num_threads = 0
        self._alive = launch.context().Pipe(duplex=False)

    def run(self, size: int, target: Callable[..., Any], *args: Any, timeout_s: float = 240) -> Any:
        """Call ``target(world, *args)`` on the first ``size`` ranks; their results, by rank.

        Arguments and results are pickled; ``target`` must be importable by name.

        Raises:
            RankError: a rank failed or did not answer in time. The others have
                :data:`launch.GRACE_S` to end what they do; then the ranks, which may wait for
                one another, are ended. The next call starts others.
        """
        assert 1 <= size <= self.size, f"a pool of {self.size} ranks cannot run {size}"
        if self._num_threads > WORN_OUT:
            self.close_ranks()
        rendezvous = Path(self._scratch.name) / f"rendezvous-{next(self._calls)}"
        self._start()
        for rank, (_, connection) in enumerate(self._ranks[:size]):
            connection.send((target, World.local(rank, size, rendezvous), args))
        return self._results(size, timeout_s)

    def _results(self, size: int, timeout_s: float) -> list[Any]:
        results: dict[int, Any] = {}
        failure: str | None = None
        by_connection = {connection: rank for rank, (_, connection) in enumerate(self._ranks)}
        waiting = [connection for _, connection in self._ranks[:size]]
        while waiting:
            ready = wait(waiting, timeout=launch.GRACE_S if failure else timeout_s)
            if not ready:
                if failure:
                    break
                missing = ", ".join(str(by_connection[connection]) for connection in waiting)
                self.close_ranks()
                raise RankError(f"no answer from rank {missing} within {timeout_s:.0f} s")
            for connection in ready:
                assert isinstance(connection, Connection)
                rank = by_connection[connection]
                try:
                    succeeded, value, num_threads = connection.recv()
                except EOFError:
                    succeeded, value, num_threads = False, "it ended without an answer", 0
                self._num_threads = max(self._num_threads, num_threads)
                waiting.remove(connection)
                results[rank] = value
                if not succeeded:
                    failure = failure or f"rank {rank} of {size} failed:\n{value}"
        if failure:
            self.close_ranks()
            raise RankError(failure)
        return [results[rank] for rank in range(size)]

    def _start(self) -> None:
        context = launch.context()
        while len(self._ranks) < self.size:
            ours, theirs = context.Pipe()
            rank = len(self._ranks)
            process = context.Process(
                target=_serve, args=(theirs, self._alive[0]), name=f"pool-{rank}"
            )
            launch.start(process)
            theirs.close()
            self._ranks.append((process, ours))

    def close_ranks(self) -> None:
        """End all ranks; a later call starts new ones."""
        for process, connection in self._ranks:
            process.kill()
            process.join()
            connection.close()
        self._ranks, self._num_threads = [], 0

    def __enter__(self) -> Self:
        launch.preload(tensor=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.close_ranks()
        self._scratch.cleanup()


def _serve(connection: Connection, alive: Connection) -> None:
    """Main function of a rank: serve calls until the pool is gone, even in the middle of one."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, preemption.SIGNALS)
    launch.settle(alive)
    while True:
        try:
            target, world, args = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer = (True, target(world, *args))
        except BaseException:
            answer = (False, traceback.format_exc())
        # Engines are full of cycles, and hold process groups whose threads go on polling.
        gc.collect()
        connection.send((*answer, _num_threads()))


def _num_threads() -> int:
    """Threads of this process, including those of libraries; 0 where /proc is missing."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0
