"""Training through the real engine: one curve, whatever the ranks, stops and resumes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrain.__main__ import main
from pretrain.checkpoint import store
from pretrain.run.metrics import read_rows

TIMES = ("perf/",)
REFERENCE = ("optim.eps=1e-6", "eval.every=5")


def curve(run: Path) -> list[dict[str, float]]:
    """The rows of a run without times and throughputs."""
    return [
        {key: value for key, value in row.items() if not key.startswith(TIMES)}
        for row in read_rows(run / "metrics.jsonl")
    ]


def training(run: Path, key: str) -> list[float]:
    return [row[key] for row in curve(run) if key in row]


@pytest.fixture(scope="session")
def reference(demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run on one rank, uninterrupted, with Adam's eps at 1e-6."""
    run = tmp_path_factory.mktemp("reference") / "run"
    words = [str(root / "configs/tiny.yaml"), f"run_dir={run}", f"data.demo_dir={demo_dir}"]
    assert main([*words, *REFERENCE]) == 0
    return run


def test_a_run_directory_holds_what_it_should(reference: Path) -> None:
    names = {path.name for path in reference.iterdir()}
    assert names == {
        "config.yaml", "metrics.jsonl", "run.json", "status.json",
        "checkpoints", "samples", "plots", "attempts",
    }  # fmt: skip
    status = json.loads((reference / "status.json").read_text())
    assert (status["state"], status["step"], status["attempt"]) == ("done", 20, 1)
    rows = curve(reference)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
    assert [row["step"] for row in rows if "val/nelbo" in row] == [5, 10, 15, 20]
    assert any(key.startswith("train/loss_level_") for key in rows[0])
    facts = json.loads((reference / "run.json").read_text())
    assert facts["packages"]["torch"] == torch.__version__


def test_it_learns(reference: Path) -> None:
    losses = training(reference, "loss")
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    "words",
    [
        ("parallel.data=2", "parallel.zero_stage=3", "parallel.micro_batch=1"),
        ("parallel.tensor=2", "parallel.pipeline=2", "parallel.micro_batch=4"),
    ],
    ids=" ".join,
)
def test_the_curve_does_not_depend_on_the_layout(
    reference: Path, train, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Other layouts are those of test_layouts.py, which takes the trainer's own step."""
    train(*REFERENCE, *words, "stop_after=5")
    run = tmp_path / "run"
    for key, close in (("loss", 1e-5), ("grad_norm", 1e-4), ("tokens_seen", 0)):
        found = training(run, key)
        assert len(found) >= 5
        assert found == pytest.approx(training(reference, key)[: len(found)], rel=close)
    (nelbo,) = training(run, "val/nelbo")
    assert nelbo == pytest.approx(training(reference, "val/nelbo")[0], rel=1e-5)


def test_a_finished_run_says_so(reference: Path, root: Path, demo_dir: Path, capsys) -> None:
    before = (reference / "metrics.jsonl").read_bytes()
    words = [str(root / "configs/tiny.yaml"), f"run_dir={reference}", f"data.demo_dir={demo_dir}"]
    assert main([*words, *REFERENCE]) == 0
    assert "is done: 20 steps" in capsys.readouterr().err
    assert (reference / "metrics.jsonl").read_bytes() == before


def test_another_run_may_not_use_the_directory(
    reference: Path, root: Path, demo_dir: Path, capsys
) -> None:
    words = [str(root / "configs/tiny.yaml"), f"run_dir={reference}", f"data.demo_dir={demo_dir}"]
    assert main([*words, *REFERENCE, "optim.lr=1.0", "seed=3"]) == 2
    error = capsys.readouterr().err
    assert "seed: was 0, is 3" in error
    assert "optim.lr: was 0.003, is 1.0" in error


@pytest.mark.slow
def test_a_broken_newest_checkpoint_is_passed_over(tiny, tmp_path: Path) -> None:
    assert main(tiny("stop_after=12")) == 0
    run = tmp_path / "run"
    whole = curve(run)
    (newest, _) = store.newest(run / "checkpoints")
    assert newest is not None
    (newest / "rank-00000.safetensors").unlink()
    _, error = start(tiny("stop_after=12")).communicate(timeout=60)
    assert "rank-00000.safetensors is missing" in error
    assert curve(run) == whole


@pytest.mark.slow
def test_a_gradient_that_is_never_finite_ends_the_run(tiny, tmp_path: Path) -> None:
    process = start(tiny("optim.lr=1e30", "optim.clip=0", "max_skipped_steps=3"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the gradient was not finite 3 steps in a row (stream positions" in error
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"


def start(words: list[str], *launcher: str) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "-m", "pretrain", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_torchrun_starts_it_too(tiny, tmp_path: Path, reference: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = tiny("optim.eps=1e-6", "stop_after=5")
    done = subprocess.run([*command, "-m", "pretrain", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = training(tmp_path / "run", "loss")
    assert got == pytest.approx(training(reference, "loss")[:5], rel=1e-5)


def test_wandb_offline_never_stops_a_run(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    assert main(tiny("wandb.mode=offline", "stop_after=2")) == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
