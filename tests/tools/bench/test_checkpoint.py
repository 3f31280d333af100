"""The benchmark of saves and loads, on a model that is saved in moments."""

import json
from pathlib import Path

import pytest

from tools.bench import checkpoint
from tools.bench.__main__ import main

TINY = ["--vocab-size=1000", "--width=64", "--layers=2", "--heads=2", "--repeats=2"]


def test_all_figures_are_there_and_fit(tmp_path: Path, capsys) -> None:
    (tmp_path / "disk").mkdir()
    words = [f"--directory={tmp_path / 'disk'}", f"--json={tmp_path / 'result.json'}"]
    assert main(["checkpoint", *TINY, *words]) == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert len(found["stall_seconds"]) == len(found["save_seconds"]) == 2
    for stall, save in zip(found["stall_seconds"], found["save_seconds"], strict=True):
        assert 0 < stall < save
    assert len(found["files"]) == 2 + 3
    assert sum(found["files"].values()) == pytest.approx(16 * found["parameters"], rel=0.05)
    assert set(found["loads"]) == {"same layout", "tensor 2"}
    for load in found["loads"].values():
        assert all(part > 0 for part in load["verify_seconds"])
        assert len(load["seconds"]) == 2
    assert found["met"] == (found["share"] <= found["target"] == 0.15)
    printed = capsys.readouterr().out
    assert "stall of the first" in printed
    assert ("✓" in printed) == found["met"]
    assert not list((tmp_path / "disk").iterdir())


@pytest.mark.parametrize(("most", "status"), [(0.0, 1), (1.0, 0)])
def test_check_tells_by_the_exit_status(monkeypatch, most: float, status: int) -> None:
    figures = {
        "parameters": 10, "ranks": 2, "stall_seconds": [0.1], "save_seconds": [1.0],
        "first_stall_seconds": 0.5, "first_save_seconds": 2.0, "loads": {}, "files": {"a": 160},
        "bytes_per_parameter": 16.0, "share": 0.1, "target": most, "met": most >= 0.1,
    }  # fmt: skip
    monkeypatch.setattr(checkpoint, "_measure", lambda *arguments: figures)
    assert main(["checkpoint", "--check"]) == status


def test_weights_that_come_back_changed_are_refused() -> None:
    from tools.bench.checkpoint_ranks import Saves

    saves = [Saves(stall=[], blocking=[], parameters=1, digest=2.0)]
    with pytest.raises(ValueError, match=r"tensor 2: the weights' squares sum up to 2\.1"):
        checkpoint._refuse_other_weights("tensor 2", [2.1], saves)
