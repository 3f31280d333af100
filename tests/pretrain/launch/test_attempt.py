"""Once a newer attempt has begun, an earlier one publishes nothing."""

from pathlib import Path

import pytest

from configs.errors import RunError
from configs.load import load
from pretrain.checkpoint import store
from pretrain.config import RunConfig
from pretrain.hooks import Hook
from pretrain.launch.local import World
from pretrain.launch.train import train
from pretrain.parallel import deepspeed
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import read_rows
from pretrain.trainer import Trainer


def test_an_earlier_attempt_has_no_say_in_the_status(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    first = directory.begin(tiny_config)
    directory.write_status("running", 3, first, "")
    assert not directory.superseded(first)
    second = directory.begin(tiny_config)
    assert directory.superseded(first)
    assert not directory.superseded(second)
    directory.write_status("running", 1, second, "")
    directory.write_status("failed", 9, first, "lost its peers")
    assert directory.read_status()["attempt"] == second


def test_an_earlier_attempt_that_comes_late_takes_nothing_away(tmp_path: Path) -> None:
    store.fence(tmp_path, 4)
    with pytest.raises(RunError, match="a newer attempt than 3 has begun"):
        store.fence(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == [".attempt-4"]


class NewerBegins(Hook):
    """A newer attempt begins during step 4, as the old ranks of a lost node would see it."""

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.state.step == 4:
            trainer.attempt.directory.begin(trainer.config)


def test_an_earlier_attempt_stops_at_its_next_step(tiny, tmp_path: Path, monkeypatch) -> None:
    run = RunDirectory(tmp_path / "run")
    # A rank sets it for the life of its process, which is this one.
    monkeypatch.setenv("LOCAL_RANK", "0")
    file, *words = tiny("eval.every=0")
    config = load(RunConfig, [Path(file)], words)
    world = World.local(0, 1, tmp_path / "meeting")
    try:
        with pytest.raises(RunError, match="a newer attempt than 1 has begun"):
            train(world, config, run.path, [NewerBegins()])
    finally:
        deepspeed.destroy()
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2, 3, 4]
    assert run.read_status()["state"] == "running"
    assert not store.committed(run.checkpoints)


def test_a_launchers_records_may_lie_in_a_run_directory(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "run" / "slurm").mkdir(parents=True)
    RunDirectory(tmp_path / "run").check(tiny_config)
