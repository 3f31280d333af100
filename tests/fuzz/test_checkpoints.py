"""Hundreds of damages to what a run keeps: each is an error that says so, or is passed over."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import RunError, UserError
from pretrain.__main__ import main as pretrain
from pretrain.checkpoint import manifest, store
from pretrain.checkpoint.reader import Reader
from pretrain.config import RunConfig
from pretrain.launch import preflight
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import Metrics, read_rows
from tools import inspect

NUM = 300
VALUES = [
    None, True, -1, 0, 2**40, 2**70, 1.5, float("nan"), float("inf"), "", "x", "../x",
    [], [[]], {}, {"a": []}, [-1], [2**60], [1.5], ["rank-00000.safetensors"],
]  # fmt: skip


def bytes_of(rng: random.Random, data: bytes) -> bytes:
    """One damage to bytes."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(7)
    if kind == 0 and data:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
    if kind == 3:
        return data[:at] + bytes(len(data) - at)
    if kind == 4:
        return data[at:]
    if kind == 5:
        return data[:at] + b"\n" + data[at:]
    return rng.choice([b"", b"[]", b"null", b"{}", b"7", b"[" * 9999, b"\xff" * 9, b"\n" * 9])


def shape_of(rng: random.Random, value: object) -> object:
    """One value somewhere in plain data is another, is gone, or is new."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: shape_of(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], shape_of(rng, value[at]), *value[at + 1 :]]
    return rng.choice(VALUES)


def damage_bytes(rng: random.Random, run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    file = rng.choice(files)
    kind = rng.randrange(12)
    if kind == 0:
        file.unlink()
    elif kind == 1:
        file.unlink()
        file.mkdir()
    elif kind == 2:
        (file.parent / rng.choice([".nfs0001", ".DS_Store", ".attempt-old", "step-9", "x"])).touch()
    else:
        file.write_bytes(bytes_of(rng, file.read_bytes()))


def damage_shape(rng: random.Random, run: Path) -> None:
    """With the checksums that go with it: what another program might write."""
    path = rng.choice(store.committed(run / "checkpoints"))
    file = path / rng.choice(["state.json", "index.json"])
    file.write_text(json.dumps(shape_of(rng, json.loads(file.read_text()))))
    files = dict(manifest.read(path)["files"])
    files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    (path / store.MANIFEST).write_text(manifest.text_of(files))


def start(run: Path, config: RunConfig) -> None:
    """What a start does of itself, but for the engine."""
    directory = RunDirectory(run)
    directory.check(config)
    preflight.nothing_to_do(run, store.open_newest(directory.checkpoints)[0], config.steps)
    attempt = directory.begin(config)
    store.fence(directory.checkpoints, attempt)
    newest, _ = store.newest(directory.checkpoints)
    step, rows = 0, None
    if newest is not None and store.damage(newest) is None:
        state = Reader(newest, verified=True).state
        step, rows = state["step"], state.get("metric_rows")
    Metrics(directory.metrics, step, rows).close()
    directory.write_status("running", step, attempt, "")


def read_all(run: Path) -> None:
    for path in store.committed(run / "checkpoints"):
        reader = Reader(path)
        for kind in reader.kinds():
            for _ in reader.whole(kind):
                pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", [damage_bytes, damage_shape])
def test_no_damage_is_a_traceback(tiny, tmp_path: Path, capsys, how: Callable[..., None]) -> None:
    words = ("model.width=16", "model.num_layers=1", "model.num_heads=1")
    words += ("eval.every=0", "stop_after=4", "checkpoint.every=2", "parallel.data=2")
    assert pretrain(tiny(*words)) == 0
    whole, run = tmp_path / "run", tmp_path / "damaged"
    config = RunDirectory(whole)
    for seed in range(NUM):
        rng = random.Random(seed)
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        for _ in range(rng.choice([1, 1, 2, 3])):
            how(rng, run)
        for work in (
            lambda: start(run, _config_of(config)),
            lambda: read_all(run),
            lambda: inspect.main([str(run)]),
            lambda: inspect.main([str(run), "--verify", "--json"]),
            lambda: read_rows(run / "metrics.jsonl"),
        ):
            try:
                work()
            except (UserError, RunError):
                pass
            except BaseException as error:
                raise AssertionError(f"seed {seed}") from error
        capsys.readouterr()
    assert os.path.exists(whole)


def _config_of(run: RunDirectory) -> RunConfig:
    from configs.load import load

    return load(RunConfig, [run.config])
