"""A rank that stands still says where; a rank that fails ends the run with its traceback."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.exit_codes import HUNG
from configs.load import load
from pretrain.config import RunConfig
from pretrain.hooks import Hook
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.launch.watchdog import Watchdog
from pretrain.run.directory import RunDirectory
from pretrain.trainer import Trainer


def here_it_stands(seconds: float) -> None:
    time.sleep(seconds)


def test_a_stall_is_reported_once_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with Watchdog(3, 0.2) as watchdog:
        here_it_stands(0.8)
        watchdog.beat()
    error = capsys.readouterr().err
    assert error.count("[rank 3] no progress for 0.2 s; its stacks:") == 1
    assert "in here_it_stands" in error
    assert "thread MainThread" in error


def test_progress_keeps_it_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Watchdog(0, 0.4) as watchdog:
        for _ in range(10):
            time.sleep(0.1)
            watchdog.beat()
    with Watchdog(0, 0.0):
        time.sleep(0.3)
    assert capsys.readouterr().err == ""


def run(tmp_path: Path, source: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A module whose ``rank(world)`` runs on three local ranks."""
    (tmp_path / "work.py").write_text(source)
    main = "import sys; from pretrain.launch.local import run_local; import work; "
    command = [sys.executable, "-c", main + "sys.exit(run_local(3, work.rank))"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    return done, time.monotonic() - started


@pytest.mark.alone
def test_when_one_rank_stalls_all_of_them_say_where(tmp_path: Path) -> None:
    source = """
import time
from pretrain.parallel.mesh import Mesh
from pretrain.launch.watchdog import Watchdog

def stalls():
    time.sleep(4)

def rank(world):
    mesh = Mesh(world)
    with Watchdog(mesh.rank, 1.0):
        if mesh.rank == 1:
            stalls()
        mesh.barrier()
    return 0
"""
    done, _ = run(tmp_path, source)
    assert done.returncode == 0, done.stderr
    for number in range(3):
        assert f"[rank {number}] no progress for 1 s" in done.stderr
    assert done.stderr.count("in stalls") == 1
    assert done.stderr.count("in barrier") >= 2


@pytest.mark.alone
def test_one_rank_that_fails_ends_the_others_in_time(tmp_path: Path) -> None:
    source = """
from pretrain.parallel.mesh import Mesh

def rank(world):
    mesh = Mesh(world)
    mesh.barrier()
    if mesh.rank == 2:
        raise ArithmeticError("the culprit")
    mesh.barrier()
    return 0
"""
    done, seconds = run(tmp_path, source)
    assert done.returncode == 1
    assert seconds < 30
    assert done.stderr.splitlines()[0].startswith("[rank 2] Traceback")
    assert "ArithmeticError: the culprit" in done.stderr
    assert "rank 2 failed; the run has ended" in done.stderr
    assert "[rank 0]" not in done.stderr


def test_where_it_is_to_leave_a_stall_ends_the_process(tmp_path: Path) -> None:
    source = "import time; from pretrain.launch.watchdog import Watchdog\n"
    source += "with Watchdog(1, 0.2, leave=True): time.sleep(60)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == HUNG == 70
    assert "[rank 1] no progress for 0.2 s; its stacks:" in done.stderr


class SlowFirstRank(Hook):
    """On the first rank start, commit and end take longer each than the watchdog allows a step."""

    def on_init_end(self, trainer: Trainer) -> None:
        self._wait(trainer)

    def on_commit(self, trainer: Trainer) -> None:
        self._wait(trainer)

    def on_train_end(self, trainer: Trainer) -> None:
        self._wait(trainer)

    def _wait(self, trainer: Trainer) -> None:
        time.sleep(4.0 if trainer.mesh.is_first else 0.0)


@pytest.mark.alone
def test_no_rank_leaves_while_the_first_one_begins_saves_or_ends(
    pool: Pool, tiny, tmp_path: Path
) -> None:
    file, *words = tiny("steps=2", "eval.every=0", "parallel.data=2", "watchdog_s=2")
    config = load(RunConfig, [Path(file)], [*words, "watchdog_leave=true"])
    done = pool.run(2, train_rank, config, tmp_path / "run", [SlowFirstRank()])
    assert done == [0, 0]
    assert RunDirectory(tmp_path / "run").read_status()["state"] == "done"


def test_named_work_without_a_beat_has_patience(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start, a first step, a save: they may take longer than a step ever does."""
    monkeypatch.setattr("pretrain.launch.watchdog.PATIENCE_S", 0.8)
    with Watchdog(1, 0.2) as watchdog:
        with watchdog.during("its last save"):
            time.sleep(0.5)
        assert capsys.readouterr().err == ""
        with watchdog.during("its last save"):
            here_it_stands(1.2)
        assert "[rank 1] no progress in its last save for 0.8 s" in capsys.readouterr().err
        with watchdog.during("its first step", when=False):
            here_it_stands(0.5)
        assert "[rank 1] no progress for 0.2 s" in capsys.readouterr().err
        here_it_stands(0.5)
        assert "[rank 1] no progress for 0.2 s" in capsys.readouterr().err
