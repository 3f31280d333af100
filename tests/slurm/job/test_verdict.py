"""How ends are told apart, and when a run is not started again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.json_files import write_json
from slurm.controller import Job, accounted, shown
from slurm.job.allocation import fate_of
from slurm.job.restart_policy import RestartPolicy
from slurm.job.verdict import judge
from slurm.records import Records


def exits(*codes: int, signals: tuple[str, ...] = ()) -> dict[int, dict[str, Any]]:
    return {rank: {"code": code, "signals": signals} for rank, code in enumerate(codes)}


@pytest.mark.parametrize(
    ("codes", "signals", "asked", "kind"),
    [
        ((0, 0), (), (), "done"),
        ((75, 75), ("SIGUSR2",), (), "stopped"),
        ((75, 75), (), ("SIGUSR2",), "stopped"),
        ((75, 75), ("SIGTERM",), (), "terminated"),
        ((75, 75), ("SIGUSR2", "SIGTERM"), (), "stopped"),
        ((75, 75), ("SIGUSR2", "SIGTERM"), ("SIGTERM",), "terminated"),
        ((75,), ("SIGTERM",), ("SIGTERM",), "terminated"),
        ((2, 1), (), (), "wrong"),
        ((1, 70), (), (), "hung"),
        ((1, 1), (), (), "failed"),
        ((-9, 1), (), (), "killed"),
        ((76, 1), (), (), "superseded"),
        ((), (), (), "killed"),
    ],
)
def test_a_verdict_comes_from_the_ranks_accounts(
    codes: tuple[int, ...], signals: tuple[str, ...], asked: tuple[str, ...], kind: str
) -> None:
    found = judge(exits(*codes, signals=signals), 2, status=143, asked=asked)
    assert found.kind == kind


def test_a_lost_node_is_named_whatever_the_others_say() -> None:
    found = judge(exits(1), 2, status=None, lost=["n2"])
    assert (found.kind, found.nodes) == ("lost", ("n2",))


def test_lost_peers_are_no_failure_of_the_run_itself() -> None:
    found = judge(
        exits(1), 2, status=1, srun_output="srun: error: Node failure on n4", complaint="gloo"
    )
    assert (found.kind, found.reason) == ("killed", "srun: error: Node failure on n4")
    assert judge(exits(2, 1), 2, status=1, lost=["n2"]).kind == "lost"


def test_what_srun_says_is_the_reason_where_no_rank_left_an_account() -> None:
    said = "srun: job 5\nsrun: error: Task launch for StepId=5.0 failed: Job credential revoked"
    assert "credential revoked" in judge({}, 2, status=1, srun_output=said).reason


FATES = {
    "requeued": Job(id="1", state="COMPLETING", restarts=3, preempted=True),
    "preempted": Job(id="1", state="COMPLETING", restarts=2, preempted=True),
    "grace": Job(id="1", state="RUNNING", restarts=2, preempted=True),
    "running": Job(id="1", state="RUNNING", restarts=2),
    "time limit": Job(id="1", state="COMPLETING", restarts=2, reason="TimeLimit"),
    "cancelled": Job(id="1", state="COMPLETING", restarts=2),
    "lost": Job(id="1", state="NODE_FAIL", restarts=2, reason="NodeDown"),
}


@pytest.mark.parametrize("fate", FATES)
def test_a_jobs_fate_is_read_from_what_slurm_shows(fate: str) -> None:
    assert fate_of(FATES[fate], restart=2) == fate


def test_what_slurm_and_accounting_show_is_read() -> None:
    text = (
        "JobId=5 JobName=a b JobState=RUNNING Reason=None Restarts=2 PreemptTime=None "
        "NodeList=n[1-2] x=y"
    )
    assert shown(text, "5") == Job(
        id="5", state="RUNNING", restarts=2, nodes="n[1-2]", source="scontrol"
    )
    lines = "5_1|RUNNING|n1\n5|CANCELLED by 1000|None assigned\n"
    found = accounted(lines, "5")
    assert found is not None
    assert (found.state, found.over, found.source) == ("CANCELLED", True, "sacct")
    assert accounted(lines, "6") is None


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def progress(records: Records) -> RestartPolicy:
    start: Any = SimpleNamespace(number=1, settings=SimpleNamespace(max_restarts=3))
    return RestartPolicy(records, start)


def started(records: Records, step: int, kind: str, reached: int) -> None:
    start = records.new_start({"submission": 1, "step": step})
    write_json(start.outcome, {"kind": kind, "reason": "why", "reached": reached})


def save(records: Records, step: int) -> None:
    (records.run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


def test_starts_that_gain_nothing_are_bounded_by_step(records: Records) -> None:
    for _ in range(2):
        started(records, 0, "killed", 0)
    assert progress(records).refusal() is None
    save(records, 10)
    for _ in range(2):
        started(records, 10, "killed", 12)
    assert progress(records).refusal() is None
    started(records, 10, "stopped", 12)
    text = "3 starts in a row did not get beyond step 10; the last: why"
    assert progress(records).refusal() == text
    records.update_state(count_from=5)
    assert progress(records).refusal() is None


def test_a_failure_at_the_same_step_twice_is_the_last(records: Records) -> None:
    started(records, 0, "failed", 7)
    started(records, 0, "failed", 9)
    assert progress(records).refusal() is None
    started(records, 0, "failed", 9)
    assert progress(records).refusal() == "failed twice at step 9: why"


def test_wrong_input_is_the_last_word_only_before_anything_is_saved(records: Records) -> None:
    started(records, 0, "wrong", 0)
    assert not progress(records).has_saved
    save(records, 10)
    assert progress(records).has_saved
    started(records, 10, "wrong", 10)
    assert progress(records).refusal() is None
    started(records, 10, "wrong", 10)
    assert progress(records).refusal() == "failed twice at step 10: why"


def test_starts_are_numbered_once_and_the_last_one_counts(records: Records) -> None:
    first, second = records.new_start({}), records.new_start({})
    assert (first.number, second.number) == (1, 2)
    assert first.superseded
    assert not second.superseded
