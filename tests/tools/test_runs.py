"""The list of runs: what their own files say, whatever is missing or damaged."""

import json
import os
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from pretrain.run.aside import move_aside
from tools import runs

ROW = {"step": 40, "tokens_seen": 1, "loss": 5.25, "perf/tokens_per_second": 1234.5}


def make(
    path: Path, state: str = "done", rows: tuple[object, ...] = (ROW,), reason: str = ""
) -> Path:
    (path / "attempts").mkdir(parents=True)
    (path / "config.yaml").write_text("steps: 100\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status = {"state": state, "step": 40, "attempt": 1, "reason": reason}
    (path / "status.json").write_text(json.dumps(status))
    return path


def listed(capsys, *words: object) -> list[dict]:
    assert runs.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_with_state_step_loss_speed_and_age(tmp_path: Path, capsys) -> None:
    bound = {"step": 40, "tokens_seen": 1, "val/nelbo": 4.5}
    make(tmp_path / "b" / "deep", rows=(ROW, bound))
    make(tmp_path / "a", "failed", reason="ValueError: no\n more")
    past = time.time() - 7200
    os.utime(tmp_path / "a" / "metrics.jsonl", (past, past))
    first, second = listed(capsys, tmp_path)
    assert (first["run"], first["state"]) == (str(tmp_path / "a"), "failed")
    assert 7190 < first["age_s"] < 7300
    assert (second["step"], second["steps"], second["loss"]) == (40, 100, 5.25)
    assert (second["held_out"], second["tokens_per_second"]) == (4.5, 1234.5)
    assert runs.main([str(tmp_path)]) == 0
    head, line, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "step", "loss", "held-out", "tokens/s", "age"]
    assert line.endswith("failed  40/100  5.2500               1,234  2 h  ValueError: no more")


def test_nothing_below_a_run_is_a_run(tmp_path: Path, capsys) -> None:
    run = make(tmp_path / "run")
    make(run / "checkpoints" / "step-00000010")
    make(tmp_path / ".hidden")
    assert [one["run"] for one in listed(capsys, tmp_path)] == [str(run)]
    assert [one["run"] for one in listed(capsys, run, tmp_path, run)] == [str(run)]


def test_a_job_that_waits_is_listed_by_its_launchers_word(tmp_path: Path, capsys) -> None:
    (tmp_path / "run" / "slurm").mkdir(parents=True)
    (tmp_path / "run" / "slurm" / "state.json").write_text('{"state": "submitted"}')
    (one,) = listed(capsys, tmp_path)
    assert (one["state"], one["step"], one["loss"], one["age_s"]) == ("submitted", None, None, None)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.jsonl", b""),
        ("metrics.jsonl", b"\n\x80\n[1]\n{\n"),
        ("metrics.jsonl", b'{"step": 3, "loss": NaN}\n'),
        ("metrics.jsonl", b'{"step": null, "loss": null}\n'),
        ("status.json", b"["),
        ("status.json", b"[]"),
        ("config.yaml", b": : ["),
        ("config.yaml", b"steps: many"),
    ],
)
def test_damaged_files_hide_no_run(tmp_path: Path, capsys, file: str, text: bytes) -> None:
    (make(tmp_path / "run") / file).write_bytes(text)
    (one,) = listed(capsys, tmp_path)
    assert one["run"] == str(tmp_path / "run")
    assert runs.main([str(tmp_path)]) == 0


def test_missing_files_hide_no_run(tmp_path: Path, capsys) -> None:
    (tmp_path / "run" / "attempts").mkdir(parents=True)
    (one,) = listed(capsys, tmp_path)
    assert one["state"] == "unknown"


def test_of_a_long_file_the_end_is_read(tmp_path: Path, capsys) -> None:
    rows = tuple({**ROW, "step": step, "loss": float(step)} for step in range(1, 3001))
    make(tmp_path / "run", rows=rows)
    (one,) = listed(capsys, tmp_path)
    assert (one["step"], one["loss"]) == (3000, 3000.0)


def test_no_runs_are_no_error_and_no_directory_is_one(tmp_path: Path, capsys) -> None:
    assert runs.main([str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().err
    assert listed(capsys, tmp_path) == []
    assert runs.main([str(tmp_path / "nowhere")]) == 2
    assert "is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (86400, "24 h"), (2e5, "2 d")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert runs.duration(seconds) == text


# -- beginning anew -----------------------------------------------------------------------


def test_a_run_is_moved_aside_and_never_deleted(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run = make(tmp_path / "run", rows=({**ROW, "step": number},))
        assert move_aside(run) == tmp_path / f"run.{number}"
        assert not run.exists()
    assert json.loads((tmp_path / "run.2" / "metrics.jsonl").read_text())["step"] == 2


def test_where_no_run_is_there_is_nothing_to_move(tmp_path: Path) -> None:
    assert move_aside(tmp_path / "run") is None
    (tmp_path / "run").mkdir()
    assert move_aside(tmp_path / "run") is None


def test_a_run_without_its_configuration_is_moved_too(tmp_path: Path) -> None:
    """As a start takes it for a run: by its checkpoints."""
    run = make(tmp_path / "run")
    (run / "config.yaml").unlink(missing_ok=True)
    (run / "checkpoints" / "step-00000010").mkdir(parents=True)
    assert move_aside(run) == tmp_path / "run.1"


def test_what_a_killed_start_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """A start without --fresh begins there as well."""
    for name in ("checkpoints", "attempts"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / ".DS_Store").touch()
    assert move_aside(tmp_path / "run") is None
    assert (tmp_path / "run" / ".DS_Store").exists()


def test_a_live_run_and_what_is_no_run_stay(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is running; stop it first"):
        move_aside(make(tmp_path / "run", "running"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("precious")
    with pytest.raises(UserError, match="holds none"):
        move_aside(tmp_path / "thesis")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="holds none"):
        move_aside(tmp_path / "file")
    (make(tmp_path / "job") / "slurm").mkdir()
    with pytest.raises(UserError, match="belongs to a job"):
        move_aside(tmp_path / "job")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "job", "run", "thesis"]


def test_a_dry_run_moves_nothing(tiny, tmp_path: Path, capsys) -> None:
    from pretrain.__main__ import main

    make(tmp_path / "run")
    assert main([*tiny(), "--fresh", "--dry-run"]) == 2
    assert "--dry-run starts none" in capsys.readouterr().err
    assert (tmp_path / "run").exists()
