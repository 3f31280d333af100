"""Invariants of a run directory: committed checkpoints are kept and sound, metrics have no gaps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import read_rows
from tools.crash.start import Violation

KEEP_LAST = 2

Row = Mapping[str, Any]


class Evidence:
    """One run directory, observed while its run lives and checked after its death.

    Args:
        keep_every: as the run has it: what stays is worked out here anew.
    """

    def __init__(self, path: Path, keep_every: int) -> None:
        self.directory = RunDirectory(path)
        self._keep_every = keep_every
        self._seen: set[int] = set()
        self._began = 0

    # -- while it lives ---------------------------------------------------------------------

    def expect_start(self) -> None:
        """Note the present state: what the next start changes is its doing."""
        self._began = self._status_time()

    def has_begun(self) -> bool:
        """Whether the present start has come to its first step."""
        return self._status_time() != self._began

    def _status_time(self) -> int:
        try:
            return self.directory.status.stat().st_mtime_ns
        except OSError:
            return 0

    def look(self) -> None:
        """Note which checkpoints are committed; a new one must be complete at once."""
        for path in store.committed(self.directory.checkpoints):
            if _step(path) in self._seen:
                continue
            try:
                store.check(path)
            except UserError as error:
                if path.exists():  # else it has just been pruned
                    raise Violation(f"a checkpoint was shown half-written: {error}") from error
            else:
                self._seen.add(_step(path))

    def num_rows(self) -> int:
        """How many steps are in the metrics; cheap to ask often."""
        try:
            return self.directory.metrics.read_bytes().count(b"\n")
        except OSError:
            return 0

    def rows(self) -> list[Row]:
        """The metrics without times."""
        return [
            {key: value for key, value in row.items() if not key.startswith("perf/")}
            for row in read_rows(self.directory.metrics)
        ]

    def being_written(self) -> list[Path]:
        """Checkpoints that are not committed yet."""
        return sorted(self.directory.checkpoints.glob(".attempt-*/step-*"))

    def moment(self) -> str:
        """The phase of the run, or that in which it was killed."""
        if not self.has_begun():
            return "start-up"
        if self.being_written():
            return "writing"
        if list(self.directory.checkpoints.glob(".pruned-*")):
            return "pruning"
        return "training"

    # -- after its death --------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The newest committed step; 0 if there is none."""
        paths = store.committed(self.directory.checkpoints)
        return _step(paths[-1]) if paths else 0

    def check(self) -> None:
        """Everything committed is there and sound, unless it was rightly pruned.

        Raises:
            Violation: what is missing or damaged.
        """
        self.look()
        paths = store.committed(self.directory.checkpoints)
        present = {_step(path) for path in paths}
        due = set(sorted(self._seen)[-KEEP_LAST:])
        if self._keep_every:
            due |= {step for step in self._seen if step % self._keep_every == 0}
        if due - present:
            raise Violation(f"committed checkpoints are lost: steps {sorted(due - present)}")
        for path in paths:
            damage = store.damage(path)
            if damage:
                raise Violation(f"a committed checkpoint is not sound: {damage}")
        steps = [row["step"] for row in self.rows()]
        if steps != list(range(1, len(steps) + 1)):
            raise Violation(f"the metrics skip or repeat steps: {steps}")
        if self.newest > len(steps):
            raise Violation(f"a checkpoint of step {self.newest}, but metrics to {len(steps)} only")


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def compare_bits(got: Sequence[Row], expected: Sequence[Row], what: str) -> None:
    """Violation unless the rows are equal bit by bit."""
    for one, other in zip(got, expected, strict=False):
        if one != other:
            raise Violation(f"{what} differs at step {one['step']}:\n  {one}\n  {other}")
    if len(got) != len(expected):
        raise Violation(f"{what} has {len(got)} rows, not {len(expected)}")


def compare_states(one: Path, other: Path, step: int) -> None:
    """Violation unless two runs saved the same tensors at a step: averages show in no curve."""
    readers = [Reader(store.path_of(run / "checkpoints", step)) for run in (one, other)]
    kinds = [reader.kinds() for reader in readers]
    if kinds[0] != kinds[1]:
        raise Violation(f"the checkpoints of step {step} hold {kinds[0]} and {kinds[1]}")
    for kind in kinds[0]:
        pairs = zip(*(reader.whole(kind) for reader in readers), strict=True)
        for (name, got), (_, expected) in pairs:
            if not torch.equal(got, expected):
                raise Violation(f"{kind}/{name} differs at step {step} from {other}")


NEAR = {"loss": 1e-5, "grad_norm": 1e-4}
"""Relative differences that summing in another order may make."""


def compare_near(got: Sequence[Row], expected: Sequence[Row], what: str) -> float:
    """The largest relative difference of a loss; Violation if it is more than rounding."""
    worst = 0.0
    by_step = {row["step"]: row for row in expected}
    for row in got:
        other = by_step[row["step"]]
        for key, allowed in NEAR.items():
            if not math.isclose(row[key], other[key], rel_tol=allowed):
                raise Violation(
                    f"{what}: {key} of step {row['step']} is {row[key]}, not {other[key]}"
                )
        worst = max(worst, abs(row["loss"] / other["loss"] - 1))
    return worst
