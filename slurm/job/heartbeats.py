"""Heartbeats of a start's nodes: a node without one is lost, long before SLURM notices.

srun returns only after slurmctld has declared a dead node down, which takes minutes, and a node
that reboots quickly is not noticed at all. So a task on every node rewrites a file, and the
supervisor watches for changes. Timestamps are not compared: clocks of nodes differ.
"""

import time
from collections.abc import Sequence

from slurm.records import Start

FIRST_BEAT_S = 600.0
"""Seconds that srun and a container may take to start a task."""
LEAVE_S = 60.0
"""Seconds that the last rank may end after the first one."""


class HeartbeatMonitor:
    """Watches the heartbeat files of one start.

    Args:
        nodes: their names, in the order of the heartbeat files. silence_s: seconds without a
            heartbeat after which a node is lost.

    Attributes:
        lost: names of the lost nodes.
    """

    def __init__(self, start: Start, nodes: Sequence[str], silence_s: float) -> None:
        self._start, self._nodes, self._silence = start, list(nodes), silence_s
        now = time.monotonic()
        self._seen: dict[int, tuple[str, float]] = dict.fromkeys(range(len(nodes)), ("", now))
        self._first_left: float | None = None
        self.lost: list[str] = []

    def must_end(self, *, ranks_left: bool) -> bool:
        """Whether the start must be ended: a node is lost, or its last ranks do not end.

        Args:
            ranks_left: whether a rank has ended already.
        """
        now = time.monotonic()
        for node in self._seen:
            self._read(node, now)
        if ranks_left and self._first_left is None:
            self._first_left = now
        finishing = self._first_left is not None
        silent = [n for n in self._seen if self._silent(n, now, finishing)]
        if 0 in silent and self._seen[0][0]:
            # Node 0 is this one, which is alive: the shared file system hangs, for all nodes.
            self._seen = {n: (text, now) for n, (text, _) in self._seen.items()}
            silent = []
        self.lost = [self._nodes[n] for n in silent]
        if self.lost:
            return True
        return self._first_left is not None and now - self._first_left > max(LEAVE_S, self._silence)

    def _read(self, node: int, now: float) -> None:
        try:
            text = self._start.beat(node).read_text(encoding="utf-8")
        except OSError:
            return
        if text != self._seen[node][0]:
            self._seen[node] = (text, now)

    def _silent(self, node: int, now: float, finishing: bool) -> bool:
        text, since = self._seen[node]
        if finishing and self._ended(node):
            return False  # Its ranks have ended, and no heartbeat is due.
        return now - since > (self._silence if text else max(FIRST_BEAT_S, self._silence))

    def _ended(self, node: int) -> bool:
        """Whether the rank that writes a node's heartbeat has ended."""
        ranks = int(self._start.facts["ranks"]) // len(self._nodes)
        return self._start.exit(node * ranks).exists()
