import json
from pathlib import Path

from pretrain.metrics import Metrics, read_rows


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
