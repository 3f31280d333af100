import json
import math
from pathlib import Path

import pytest

from pretrain.run.metrics import Metrics, read_rows


def write(path: Path, steps: range, resumed: int) -> None:
    metrics = Metrics(path, resumed)
    for step in steps:
        metrics.write({"step": step, "loss": step / 7})
    metrics.close()


def test_rows_after_the_resumed_step_are_dropped_first(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 9), 0)
    write(path, range(6, 11), 5)
    assert [row["step"] for row in read_rows(path)] == list(range(1, 11))


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4), 0)
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]
    write(path, range(4, 5), 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_every_row_is_in_the_file_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    metrics.write({"step": 1})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1}]
    metrics.close()


BAD = {
    "blank": b"",
    "cut": b'{"step": 4, "lo',
    "no row": b"[]",
    "a number": b"4",
    "no step": b'{"loss": 1.0}',
    "an odd step": b'{"step": "4"}',
    "zeros": bytes(30),
    "not UTF-8": b'{"step": 4, "loss": "\xff"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_cannot_be_read_costs_no_other(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 17), 0)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], BAD[bad] + b"\n", *lines[3:]]))
    damaged = path.read_bytes()
    assert [row["step"] for row in read_rows(path)] == list(range(1, 17))
    metrics = Metrics(path, 12, saved_rows=12)
    (note,) = metrics.warnings
    assert "line 4 cannot be read, all others stay" in note
    metrics.close()
    assert path.read_bytes() == b"".join(lines[:12])
    (copy,) = tmp_path.glob("metrics.damaged-*.jsonl")
    assert copy.read_bytes() == damaged


def test_rows_that_are_lost_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 17), 0)
    metrics = Metrics(path, 16, saved_rows=16)
    assert metrics.warnings == []
    metrics.close()
    data = path.read_bytes()
    path.write_bytes(data[:-30])  # the tail of row 16
    metrics = Metrics(path, 16, saved_rows=16)
    (note,) = metrics.warnings
    assert "holds 15 rows up to the checkpoint's step, where 16 were written" in note
    metrics.write({"step": 17})
    assert metrics.num_rows == 16
    metrics.close()
    path.unlink()
    assert "holds 0 rows" in Metrics(path, 16, saved_rows=16).warnings[0]


def test_a_row_after_the_save_is_written_once_however_often_it_is_owed(tmp_path: Path) -> None:
    """A validation that a stop put off belongs to the checkpoint's step, and comes after it."""
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4), 0)
    for _ in range(3):  # starts that end before their next checkpoint
        metrics = Metrics(path, 3, saved_rows=3)
        assert metrics.warnings == []
        metrics.write({"step": 3, "val/nelbo": 7.0})
        metrics.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 3]


def test_what_is_no_number_in_json_is_null_there_and_nan_here(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    metrics.write({"step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": 1e-3})
    metrics.close()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": None, "grad_norm": None, "lr": 1e-3}
    Metrics(path, 1).close()  # a resume writes it again
    (row,) = read_rows(path)
    assert math.isnan(row["loss"])
    assert math.isnan(row["grad_norm"])
    assert (row["step"], row["lr"]) == (1, 1e-3)
