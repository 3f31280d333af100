"""What ``status`` shows: runs, not only jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from slurm.controller import Job
from slurm.follow import state_of, summary, table
from slurm.records import Records, write_json
from slurm.sweep import name, note, points, results


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """A run at step 40 of 100, in its second start."""
    made = Records(tmp_path / "run")
    number = made.new_submission()
    write_json(made.submission(number) / "job.json", {"steps": 100})
    for _ in range(2):
        made.new_start({})
    row = {"step": 40, "tokens_seen": 4000, "loss": 2.5, "perf/tokens_per_second": 50.0}
    held_out = {"step": 40, "val/nelbo": 3.5}
    text = "".join(json.dumps(r) + "\n" for r in (row, held_out)) + '{"step": 41, "lo'
    (made.run / "metrics.jsonl").write_text(text)
    (made.run / "checkpoints" / "step-00000030").mkdir(parents=True)
    made.note(state="running", reason="")
    return made


def test_a_run_is_summed_up_from_its_own_files(records: Records) -> None:
    found = summary(records)
    assert found["step"] == "40/100"
    assert (found["saved"], found["loss"], found["tokens/s"]) == (30, 2.5, 50.0)
    assert found["left"] == "2 min"  # 60 steps of 100 tokens at 50 per second
    assert found["restarts"] == 1


@pytest.mark.parametrize(
    ("job", "noted", "away", "expected"),
    [
        (Job(id="1", state="PENDING"), "requeued", False, "pending"),
        (Job(id="1", state="COMPLETING"), "requeued", False, "completing"),
        (Job(id="1", state="COMPLETED"), "done", False, "done"),
        (Job(id="1", state="NODE_FAIL"), "running", False, "node_fail"),
        (Job(id="1", state="CANCELLED"), "cancelled", False, "cancelled"),
        (None, "running", True, "running ?"),
        (None, "done", True, "done"),
    ],
)
def test_a_state_is_slurms_while_the_job_lives(
    job: Job | None, noted: str, away: bool, expected: str
) -> None:
    assert state_of(job, noted, away=away) == expected


def test_a_table_lines_up() -> None:
    text = table([{"run": "a", "loss": 1.23456}, {"run": "long", "loss": None}])
    assert text.splitlines() == ["run   loss", "a     1.235", "long  -"]


def test_a_sweep_is_every_combination() -> None:
    assert points(["a=1,2", "b.c=x"]) == [("a=1", "b.c=x"), ("a=2", "b.c=x")]
    assert points([]) == [()]
    assert name(("a=1", "data.corpus=x/y")) == "a=1,data.corpus=x-y"
    with pytest.raises(UserError, match="write key=value,value"):
        points(["a"])


def test_results_are_one_row_for_each_run(records: Records) -> None:
    root = records.run.parent
    from types import SimpleNamespace

    submission: Any = SimpleNamespace(run=records.run)
    note(root, [("seed=1",)], [submission])
    (row,) = results(root)
    assert row == {"seed": "1", "state": "running", "step": 40, "loss": 2.5, "val/nelbo": 3.5}
