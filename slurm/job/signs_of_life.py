"""Signs of life of the nodes of a start, and of its end.

srun stays until slurmctld has declared a dead node down, which takes minutes, and a node
that reboots quickly is not noticed at all. So a task on every node changes a file, and its
supervisor looks whether it does. Only the change counts: clocks of nodes differ.
"""

import time
from collections.abc import Sequence

from slurm.records import Start

FIRST_BEAT_S = 600.0
"""How long srun and a container may take to start a task."""
LEAVE_S = 60.0
"""How long after the first of them the last rank may end."""


class Watch:
    """The watch over one start."""

    def __init__(self, start: Start, nodes: Sequence[str], silence_s: float) -> None:
        self._start, self._nodes, self._silence = start, list(nodes), silence_s
        now = time.monotonic()
        self._seen: dict[int, tuple[str, float]] = dict.fromkeys(range(len(nodes)), ("", now))
        self._first_left: float | None = None
        self.lost: list[str] = []

    def look(self, *, ranks_left: bool) -> bool:
        """Whether the start has to be ended: a node is lost, or its last ranks do not end."""
        now = time.monotonic()
        for node in self._seen:
            self._listen(node, now)
        if ranks_left and self._first_left is None:
            self._first_left = now
        finishing = self._first_left is not None
        silent = [n for n in self._seen if self._silent(n, now, finishing)]
        if 0 in silent and self._seen[0][0]:
            # That is this very node, which lives: the file system stands still, for all of them.
            self._seen = {n: (text, now) for n, (text, _) in self._seen.items()}
            silent = []
        self.lost = [self._nodes[n] for n in silent]
        if self.lost:
            return True
        return self._first_left is not None and now - self._first_left > max(LEAVE_S, self._silence)

    def _listen(self, node: int, now: float) -> None:
        try:
            text = self._start.beat(node).read_text(encoding="utf-8")
        except OSError:
            return
        if text != self._seen[node][0]:
            self._seen[node] = (text, now)

    def _silent(self, node: int, now: float, finishing: bool) -> bool:
        text, since = self._seen[node]
        if finishing and self._ended(node):
            return False  # It is silent in good order.
        return now - since > (self._silence if text else max(FIRST_BEAT_S, self._silence))

    def _ended(self, node: int) -> bool:
        """Whether the rank that beats for a node has left its account."""
        ranks = int(self._start.facts["ranks"]) // len(self._nodes)
        return self._start.exit(node * ranks).exists()
