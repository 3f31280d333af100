"""What ``status`` shows: runs, not only jobs."""

import json
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import UserError
from configs.json_files import write_json
from configs.run_files import process
from slurm import controller
from slurm.commands import status as follow
from slurm.commands.status import state_of, summary, table
from slurm.commands.sweep import MOST_BYTES, names, points, record_members, results
from slurm.controller import Job, RefusedError, UnreachableError
from slurm.records import Records


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
    made.update_state(state="running", reason="")
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


# -- runs whose processes are gone ----------------------------------------------------------

GONE = {"process": {"host": "n9", "pid": 5}}
LONG_AGO = 1000.0


def own(records: Records, state: str, silent_s: float = 0.0) -> None:
    """The run's account of itself, last touched so long ago."""
    file = records.run / "status.json"
    file.write_text(json.dumps({"state": state, "reason": "", "step": 40, **GONE}))
    then = time.time() - silent_s
    os.utime(file, (then, then))


@pytest.mark.parametrize(
    ("noted", "own_state", "silent_s", "state", "reason"),
    [
        ("running", "running", LONG_AGO, "died", "process 5 on n9 has been silent for 1000 s"),
        ("running", "running", 0.0, "running", ""),
        ("running", None, 0.0, "died", "SLURM does not know job 7 any more"),
        ("submitted", None, 0.0, "died", "SLURM does not know job 7 any more"),
        ("requeued", "stopped", 0.0, "died", "SLURM does not know job 7 any more"),
        ("preempted", "running", LONG_AGO, "died", "SLURM does not know job 7 any more"),
        ("running", "done", 0.0, "done", ""),
        ("stopped", "running", LONG_AGO, "stopped", ""),
    ],
)
def test_a_run_whose_job_nobody_knows_is_not_called_running(
    records: Records,
    monkeypatch,
    noted: str,
    own_state: str | None,
    silent_s: float,
    state: str,
    reason: str,
) -> None:
    """Its supervisor died with its node, and the controller has forgotten the job."""
    records.add_job("7", 1, "first")
    records.update_state(state=noted)
    if own_state:
        own(records, own_state, silent_s)
    monkeypatch.setattr(controller, "jobs", lambda ids: dict.fromkeys(ids))
    (row,) = follow._rows(records.run)
    assert (row["state"], row["reason"]) == (state, reason)


def test_ranks_that_show_signs_of_life_are_running(records: Records, monkeypatch) -> None:
    """A controller that has just come back may have forgotten their job."""
    records.add_job("7", 1, "first")
    records.starts()[-1].beat(0).write_text("now")
    monkeypatch.setattr(controller, "jobs", lambda ids: dict.fromkeys(ids))
    assert follow._rows(records.run)[0]["state"] == "running"


@pytest.mark.parametrize("noted", ["submitted", "running"])
def test_a_rehearsal_that_was_killed_has_died(records: Records, noted: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        records.add_job("local-1", 1, "local", process=process(child.pid))
        records.update_state(state=noted)
        assert follow._rows(records.run)[0]["state"] == noted
        child.kill()
    (row,) = follow._rows(records.run)
    assert row["state"] == "died"
    assert "has ended without a word" in row["reason"]


@pytest.mark.parametrize("error", [UnreachableError("away"), RefusedError("no"), UserError("none")])
def test_what_cannot_be_asked_is_in_doubt(records: Records, monkeypatch, error: Exception) -> None:
    def ask(ids: list[str]) -> dict[str, Job | None]:
        raise error

    records.add_job("7", 1, "first")
    monkeypatch.setattr(controller, "jobs", ask)
    (row,) = follow._rows(records.run)
    assert (row["state"], row["reason"]) == ("running ?", str(error))
    own(records, "running", LONG_AGO)
    assert follow._rows(records.run)[0]["state"] == "died"
    records.update_state(state="done")
    (row,) = follow._rows(records.run)
    assert (row["state"], row["reason"]) == ("done", "")


def test_a_job_that_runs_without_ranks_says_so(records: Records, monkeypatch) -> None:
    """Its supervisor is about to start them again."""
    records.add_job("7", 1, "first")
    own(records, "running", LONG_AGO)
    monkeypatch.setattr(controller, "jobs", lambda ids: {"7": Job(id="7", state="RUNNING")})
    (row,) = follow._rows(records.run)
    assert row["state"] == "running"
    assert row["reason"] == "process 5 on n9 has been silent for 1000 s"


def test_a_sweeps_table_says_so_too(records: Records, monkeypatch, capsys) -> None:
    records.add_job("7", 1, "first")
    submission: Any = SimpleNamespace(run=records.run)
    record_members(records.run.parent, [("seed=1",)], [submission])
    monkeypatch.setattr(controller, "jobs", lambda ids: dict.fromkeys(ids))
    arguments: Any = SimpleNamespace(runs=[records.run.parent])
    follow.status(arguments)
    table_of_values = capsys.readouterr().out.split("\n\n")[1]
    assert "died" in table_of_values
    assert "running" not in table_of_values


def test_damaged_lines_of_records_are_passed_over(records: Records) -> None:
    """As a crash or a full disk leaves them; what comes behind is not lost."""
    records.add_job("7", 1, "first")
    with (records.root / "jobs.jsonl").open("a") as file:
        file.write('\n[]\n3\n{"job": "8"}\n{"job": "9", "subm')
    records.add_job("10", 1, "requeue")
    assert [row["job"] for row in records.jobs()] == ["7", "10"]
    with (records.run / "metrics.jsonl").open("a") as file:
        file.write('\n3\n["loss"]\n"loss"\nnull\n')
    assert records.last_row()["loss"] == 2.5


def test_a_table_lines_up() -> None:
    text = table([{"run": "a", "loss": 1.23456}, {"run": "long", "loss": None}])
    assert text.splitlines() == ["run   loss", "a     1.235", "long  -"]


def test_a_sweep_is_every_combination() -> None:
    assert points(["a=1,2", "b.c=x"]) == [("a=1", "b.c=x"), ("a=2", "b.c=x")]
    assert points([]) == [()]
    assert names([("a=1", "data.corpus=x/y")]) == ["a=1,data.corpus=x-y"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[0.9,0.99],[0.9,0.95]", ["[0.9,0.99]", "[0.9,0.95]"]),
        (
            "{name: mdlm, schedule: {name: cosine}},{name: mdlm}",
            ["{name: mdlm, schedule: {name: cosine}}", "{name: mdlm}"],
        ),
        ("'a,b',\"c,d\", e f", ["'a,b'", '"c,d"', "e f"]),
        ("[1, 2] , 3", ["[1, 2]", "3"]),
        ("1e-4,-3e-4", ["1e-4", "-3e-4"]),
        ("x/y", ["x/y"]),
        ("null,true", ["null", "true"]),
        ("[[1,2],[3]],{}", ["[[1,2],[3]]", "{}"]),
    ],
)
def test_lists_blocks_and_quotes_are_whole(text: str, values: list[str]) -> None:
    assert points([f"k={text}"]) == [(f"k={value}",) for value in values]


@pytest.mark.parametrize(
    "axis", ["a", "=1", "a=", "a=1,", "a=1,,2", "a=[1,2", "a=1],[2", "a=1] #", "a=&x [1],*x"]
)
def test_an_axis_that_is_none_is_said(axis: str) -> None:
    with pytest.raises(UserError, match="write key=value,value, lists as"):
        points([axis])


def test_no_point_is_there_twice() -> None:
    with pytest.raises(UserError, match="--sweep seed=1: is there twice"):
        points(["seed=1,2,1"])


def test_members_have_names_that_differ_and_mean_nothing_to_a_shell() -> None:
    assert names([("b=[0.9,0.99]",), ("o={name: mdlm, x: 'a b'}",)]) == [
        "b=0.9,0.99",
        "o=name-mdlm,-x-a-b",
    ]
    alike = names([("c=x/y",), ("c=x-y",), ("c=z",)])
    assert len(set(alike)) == 3
    assert alike[2] == "c=z"
    (long,) = names([("c=" + "ü" * 300,)])
    assert len(long.encode()) <= MOST_BYTES + 9


def test_results_are_one_row_for_each_run(records: Records) -> None:
    root = records.run.parent
    submission: Any = SimpleNamespace(run=records.run)
    record_members(root, [("seed=1",)], [submission])
    (row,) = results(root)
    assert row == {"seed": "1", "state": "running", "step": 40, "loss": 2.5, "val/nelbo": 3.5}
