"""Whose a run directory is, however its first start ended and whatever else lies in it."""

import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import to_plain
from configs.run_files import this_process
from pretrain.checkpoint import store
from pretrain.checkpoint.manifest import INDEX, STATE
from pretrain.config import RunConfig
from pretrain.run.directory import RunDirectory

CALLS = [(os, "mkdir"), (os, "open"), (os, "replace"), (os, "fsync"), (io, "open")]


class DiskFullError(OSError):
    """Of the call that an interrupted start did not come back from."""


def interrupt(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Let so many calls to the file system succeed, and no other."""
    left = [last]

    def limited(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            if left[0] == 0:
                raise DiskFullError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
            return function(*args, **settings)

        return call

    for module, name in CALLS:
        monkeypatch.setattr(module, name, limited(getattr(module, name)))


def test_a_first_start_may_be_interrupted_anywhere(tiny_config: RunConfig, tmp_path: Path) -> None:
    for last in range(100):
        run = RunDirectory(tmp_path / str(last))
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, last)
            try:
                run.check(tiny_config)
                run.begin(tiny_config)
            except DiskFullError:
                pass
            else:
                break
        run.check(tiny_config)
        assert run.begin(tiny_config) in (1, 2)
        run.check(tiny_config)
    assert 15 < last < 99


@pytest.mark.parametrize("name", [".config.yaml", "checkpoints", ".DS_Store", ".nfs0001", "slurm"])
def test_what_a_first_start_or_the_system_left_is_in_nobodys_way(
    tiny_config: RunConfig, tmp_path: Path, name: str
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    if "." in name:
        (run.path / name).write_text("seed: 0\nprec")
    else:
        (run.path / name).mkdir()
    run.check(tiny_config)
    assert run.begin(tiny_config) == 1


@pytest.mark.parametrize("name", ["notes.txt", "samples/one.txt", "checkpoints/step-1", "src/a.py"])
def test_a_directory_of_somebody_else_is_refused(
    tiny_config: RunConfig, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunDirectory(tmp_path / "run").check(tiny_config)


def test_foreign_names_among_the_attempts_are_left_alone(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.begin(tiny_config) == 1
    foreign = [".nfs0001", ".DS_Store", "1.5", "old", "-3"]
    for name in foreign:
        (run.path / "attempts" / name).touch()
    (run.path / "attempts" / "dir").mkdir()
    assert run.begin(tiny_config) == 2
    left = {path.name for path in (run.path / "attempts").iterdir()}
    assert left == {*foreign, "dir", "1", "2"}


def test_attempts_go_on_from_what_was_staged_last(tiny_config: RunConfig, tmp_path: Path) -> None:
    """Its own files may be lost; an attempt below that number could never save."""
    run = RunDirectory(tmp_path / "run")
    run.begin(tiny_config)
    store.fence(run.checkpoints, 7)
    assert run.begin(tiny_config) == 8


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "status.json", "metrics.jsonl"])
def test_a_directory_in_the_place_of_a_file_is_named(
    tiny_config: RunConfig, tmp_path: Path, name: str
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.begin(tiny_config)
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is no file"):
        run.check(tiny_config)


@pytest.mark.parametrize("name", ["checkpoints", "samples", "plots", "attempts"])
def test_a_file_in_the_place_of_a_directory_is_named(
    tiny_config: RunConfig, tmp_path: Path, name: str
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).touch()
    with pytest.raises(UserError, match=f"{name} is no directory"):
        run.check(tiny_config)


# -- its own configuration, damaged --------------------------------------------------------


def commit(run: RunDirectory, config: RunConfig) -> None:
    staging = store.staging_of(run.checkpoints, 1, 3)
    staging.mkdir(parents=True)
    files = {}
    for name, value in ((STATE, {"step": 3, "config": to_plain(config)}), (INDEX, {})):
        file = staging / name
        file.write_text(json.dumps(value))
        files[name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    store.commit(staging, run.checkpoints, files)


def damaged(whole: bytes) -> list[bytes]:
    """Empty, zeros, no YAML, another shape, not UTF-8, and cut at many places."""
    others = [b"", bytes(len(whole)), b"a: [", b"- 1\n", b"\xff\xfe", whole.replace(b"0.003", b"x")]
    return [*others, *(whole[:at] for at in range(1, len(whole) - 40, 29))]


def test_a_damaged_config_is_named_where_nothing_tells_whose_the_run_is(
    tiny_config: RunConfig, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.begin(tiny_config)
    for text in damaged(run.config.read_bytes()):
        run.config.write_bytes(text)
        with pytest.raises(UserError, match=r"config\.yaml is empty, cut or damaged") as error:
            run.check(tiny_config)
        assert "write the run's configuration there again, or move" in str(error.value), text


def test_a_damaged_config_is_made_up_for_by_the_newest_checkpoint(
    tiny_config: RunConfig, tmp_path: Path, capsys
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.begin(tiny_config)
    commit(run, tiny_config)
    whole = run.config.read_bytes()
    for text in damaged(whole):
        run.config.write_bytes(text)
        run.check(tiny_config)
        assert f"{run.config} is empty, cut or damaged" in capsys.readouterr().err
        with pytest.raises(UserError, match=r"belongs to another run:\n  seed: was 0, is 1"):
            run.check(replace(tiny_config, seed=1))
        capsys.readouterr()
    run.config.write_bytes(whole.replace(b"0.003", b"0.001"))
    run.check(tiny_config)
    assert "config.yaml was changed: optim.lr: was 0.001, is 0.003" in capsys.readouterr().err
    other = replace(tiny_config, optim=replace(tiny_config.optim, lr=0.002))
    with pytest.raises(UserError, match=r"optim\.lr: was 0\.001, is 0\.002"):
        run.check(other)
    run.config.unlink()
    run.check(tiny_config)
    assert "config.yaml is missing; taking the configuration of" in capsys.readouterr().err
    run.begin(tiny_config)
    assert run.config.read_bytes() == whole


def test_whose_processes_are_gone_has_failed(tmp_path: Path) -> None:
    """The launcher says so where no rank could; what lives, or ended in order, has its own say."""
    run = RunDirectory(tmp_path)
    run.bury("nothing to say")
    assert not run.status.exists()
    for state in ("running", "done", "stopped"):
        run.write_status(state, 7, 1, "")
        run.bury("its ranks ended with status 1")
        assert run.read_status()["state"] == state
    for cut in ({}, {"step": 7, "attempt": 1}):
        gone = {"state": "running", "process": {**this_process(), "started": "1"}, **cut}
        run.status.write_text(json.dumps(gone))
        run.bury("its ranks ended with status 1")
        found = run.read_status()
        assert (found["state"], found["reason"]) == ("failed", "its ranks ended with status 1")
        assert found["step"] == cut.get("step", 0)
