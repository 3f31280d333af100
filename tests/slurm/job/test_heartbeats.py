"""Nodes that fall silent, and file systems that stand still."""

from pathlib import Path

import pytest

from slurm.job import heartbeats
from slurm.job.heartbeats import HeartbeatMonitor
from slurm.records import Records, Start


class Clock:
    """A clock that is set."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(heartbeats, "time", made)
    return made


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return Records(tmp_path).new_start({"ranks": 4})


def beat(start: Start, *nodes: int, at: float) -> None:
    for node in nodes:
        start.beat(node).write_text(str(at))


def test_a_node_without_a_sign_is_lost(start: Start, clock: Clock) -> None:
    monitor = HeartbeatMonitor(start, ["n1", "n2"], 90.0)
    for clock.now in (10.0, 50.0, 100.0):
        beat(start, 0, at=clock.now)
        beat(start, *([1] if clock.now < 50 else []), at=clock.now)
        assert not monitor.must_end(ranks_left=False)
    clock.now = 110.0
    beat(start, 0, at=clock.now)
    assert monitor.must_end(ranks_left=False)
    assert monitor.lost == ["n2"]


def test_when_its_own_node_seems_silent_too_nobody_is_lost(start: Start, clock: Clock) -> None:
    """The supervisor lives there; it is the shared files that stand still."""
    monitor = HeartbeatMonitor(start, ["n1", "n2"], 90.0)
    clock.now = 10.0
    beat(start, 0, 1, at=clock.now)
    assert not monitor.must_end(ranks_left=False)
    clock.now = 400.0
    assert not monitor.must_end(ranks_left=False)
    clock.now = 410.0
    beat(start, 0, at=clock.now)
    assert not monitor.must_end(ranks_left=False)
    for clock.now in (450.0, 495.0):
        beat(start, 0, at=clock.now)
    assert monitor.must_end(ranks_left=False)
    assert monitor.lost == ["n2"]


def test_ranks_that_never_begin_are_lost(start: Start, clock: Clock) -> None:
    monitor = HeartbeatMonitor(start, ["n1", "n2"], 90.0)
    clock.now = 599.0
    assert not monitor.must_end(ranks_left=False)
    clock.now = 601.0
    assert monitor.must_end(ranks_left=False)
    assert monitor.lost == ["n1", "n2"]
