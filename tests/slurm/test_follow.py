"""What ``status`` shows: runs, not only jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from slurm.controller import Job
from slurm.follow import state_of, summary, table
from slurm.records import Records, write_json
from slurm.sweep import MOST_BYTES, names, note, points, results


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


@pytest.mark.parametrize("axis", ["a", "=1", "a=", "a=1,", "a=1,,2", "a=[1,2", "a=1],[2", "a=1] #"])
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
    from types import SimpleNamespace

    submission: Any = SimpleNamespace(run=records.run)
    note(root, [("seed=1",)], [submission])
    (row,) = results(root)
    assert row == {"seed": "1", "state": "running", "step": 40, "loss": 2.5, "val/nelbo": 3.5}
