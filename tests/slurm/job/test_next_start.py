"""What follows an end, by a pretended SLURM."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm.controller import RefusedError, UnreachableError
from slurm.job import next_start as after
from slurm.job import signals
from slurm.job.next_start import NextStart
from slurm.job.verdict import Verdict
from slurm.records import Records

STOPPED = Verdict(kind="stopped", reason="saved on request (SIGUSR2)")
TERMINATED = Verdict(kind="terminated", reason="saved on request (SIGTERM)")


class Pretended:
    """An allocation that grants everything and records what it was asked."""

    def __init__(self, fates: Sequence[str], refused: str | None, successor: Any) -> None:
        self.job, self.restart, self.nodes = "7", 1, ["n1", "n2"]
        self.fates, self.refused, self.successor = list(fates), refused, successor
        self.asked: list[Any] = []

    def fate(self) -> str:
        return self.fates.pop(0) if len(self.fates) > 1 else self.fates[0]

    def requeue(self, exclude: Sequence[str]) -> str | None:
        self.asked.append(("requeue", list(exclude)))
        return self.refused

    def exclude(self, job: str, nodes: Sequence[str]) -> None:
        self.asked.append(("exclude", job, list(nodes)))

    def submit_successor(self, exclude: Sequence[str]) -> str:
        self.asked.append(("submit_successor", list(exclude)))
        if isinstance(self.successor, Exception):
            raise self.successor
        return str(self.successor)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    monkeypatch.setattr(after.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(signals, "received", [])
    made = Records(tmp_path)
    made.add_job("7", 1, "first")
    return made


def ended(
    records: Records,
    verdict: Verdict,
    *fates: str,
    refused: str | None = None,
    successor: Any = "8",
    chain: int = 1,
    requeue: bool = True,
) -> tuple[int, Pretended]:
    settings = SimpleNamespace(requeue=requeue, exclude_lost_nodes=True, max_restarts=3)
    submission: Any = SimpleNamespace(
        records=records, settings=settings, number=1, chain=chain, log="logs/{}.out".format
    )
    allocation: Any = Pretended(fates or ["running"], refused, successor)
    return NextStart(submission, allocation).act(verdict), allocation


def test_in_a_grace_an_answer_that_fails_to_come_ends_nothing(records: Records) -> None:
    code, _ = ended(records, TERMINATED, "unknown", "grace", "unknown", "requeued")
    assert (code, records.state["state"]) == (143, "requeued")


def test_a_stop_requeues_once(records: Records) -> None:
    code, allocation = ended(records, STOPPED)
    assert (code, records.state["state"]) == (0, "requeued")
    assert allocation.asked == [("requeue", [])]


@pytest.mark.parametrize("error", [RefusedError("limit"), UnreachableError("away")])
def test_without_requeue_and_successor_the_user_is_told_what_to_do(
    records: Records, error: Exception
) -> None:
    code, allocation = ended(records, STOPPED, refused="no", successor=error)
    assert [asked[0] for asked in allocation.asked] == ["requeue", "submit_successor"]
    assert (code, records.state["state"]) == (1, "stopped")
    assert f"go on with: python -m slurm requeue {records.run}" in records.state["reason"]


@pytest.mark.parametrize("requeue", [True, False])
def test_a_lost_node_ends_no_run(records: Records, requeue: bool) -> None:
    """SLURM requeues what it lost; where that is not allowed another job goes on."""
    code, allocation = ended(records, TERMINATED, "lost", requeue=requeue)
    assert (code, records.state["state"]) == (143 if requeue else 0, "requeued")
    assert allocation.asked == ([] if requeue else [("submit_successor", [])])


def test_the_next_job_of_a_chain_keeps_off_lost_nodes(records: Records) -> None:
    records.add_job("8", 1, "chain")
    lost = Verdict(kind="lost", reason="no sign of life from n2", nodes=("n2",))
    code, allocation = ended(records, lost, chain=2)
    assert (code, records.state["state"]) == (0, "stopped")
    assert allocation.asked == [("exclude", "8", ["n2"])]


def test_wrong_input_is_final_before_anything_was_saved(records: Records) -> None:
    wrong = Verdict(kind="wrong", reason="the corpus is missing")
    records.new_start({"submission": 1, "step": 0})
    assert ended(records, wrong)[0] == 2
    assert records.state["state"] == "failed"
    (records.run / "checkpoints" / "step-00000005").mkdir(parents=True)
    code, allocation = ended(records, wrong)
    assert (code, records.state["state"]) == (0, "requeued")
    assert allocation.asked == [("requeue", [])]
