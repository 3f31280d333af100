"""Frozen networks that an objective names go along in the run's checkpoints."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import installed, run_on
from small_runs import reseal

from configs.errors import UserError
from configs.load import load
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.evaluation.of_checkpoint import held_out_loss
from pretrain.launch import preflight
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.mesh import Mesh
from pretrain.planner.plan import plan
from pretrain.run.directory import RunDirectory, run_path
from pretrain.run.metrics import read_rows
from tools.convert.strip import strip_checkpoint
from tools.evaluate import __main__ as evaluate
from tools.inspect import describe


@pytest.fixture(scope="module", autouse=True)
def method() -> Iterator[None]:
    with installed():
        yield


EXACT = (
    "precision=fp32", "checkpoint.keep_last=9", "eval.every=0", "log.every=1", "ema.decay=0.9",
    "optim.eps=1e-6",
)  # fmt: skip

SMALL = ("model.width=16", "model.num_heads=2", "model.num_layers=3", "model.tied_head=true")


@pytest.fixture
def start(pool: Pool, tiny: Any) -> Callable[..., Path]:
    """Train on the pool; the run directory. As ``python -m pretrain`` looks before it starts."""

    def started(*words: str, run: str = "run") -> Path:
        file, *overrides = tiny(*EXACT, *words, run=run)
        config = load(RunConfig, [Path(file)], overrides)
        path = run_path(config, [Path(file)])
        assert preflight.check(config, path) is None
        RunDirectory(path).check(config)
        codes = run_on(pool, plan(config, None).ranks, train_rank, config, path)
        assert set(codes) == {0}
        return path

    return started


def at(run: Path, step: int, kind: str) -> dict[str, torch.Tensor]:
    return dict(Reader(store.path_of(run / "checkpoints", step)).whole(kind))


def held_out(world: World, run: Path) -> float:
    """As ``tools.evaluate RUN parallel.tensor=2`` has it."""
    mesh, layout = Mesh(world, tensor=2), ParallelConfig(tensor=2)
    loaded = load_denoiser(run, "ema", mesh.device, layout=layout, mesh=mesh)
    found = held_out_loss(loaded, "valid", which="ema", batch=32, seed=0)
    mesh.close()
    return float(found["loss"])


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_rows(run / "metrics.jsonl") if "train/loss" in row]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_run_goes_on_under_any_layout_when_the_named_checkpoint_is_gone(
    pool: Pool, start: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = start(*SMALL, "steps=6", "optim.lr=0.05", run="teacher")
    taught = ("objective.name=distilled", f"objective.teacher={old}", "steps=6")
    whole = start(*taught, "eval.every=6", "eval.windows=8", run="whole")
    start(*taught, "stop_after=2", "parallel.data=2", "parallel.zero_stage=3")
    values = at(old, 6, "ema")
    old.rename(tmp_path / "away")
    start(*taught, "stop_after=4", "parallel.tensor=2", "parallel.pipeline=2")
    run = start(
        *taught, "stop_after=6", "parallel.data=2", "parallel.zero_stage=3", "eval.every=6",
        "eval.windows=8",
    )  # fmt: skip

    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    (one,) = [row["val/loss"] for row in read_rows(whole / "metrics.jsonl") if "val/loss" in row]
    (other,) = [row["val/loss"] for row in read_rows(run / "metrics.jsonl") if "val/loss" in row]
    assert other == pytest.approx(one, rel=1e-5)
    for step in (2, 4, 6):
        reader = Reader(store.path_of(run / "checkpoints", step))
        assert same(dict(reader.whole("networks/teacher")), values)
        own = set(reader.shapes("master"))
        assert all(set(reader.shapes(kind)) == own for kind in ("exp_avg", "exp_avg_sq", "ema"))
        facts = reader.state["networks"]["teacher"]
        assert facts["checkpoint"] == str(store.path_of(old / "checkpoints", 6))
        assert (facts["step"], facts["model"]["width"]) == (6, 16)

    # What uses a run without training it.
    loaded = load_denoiser(run, "ema")
    assert same(
        {name: value.detach() for value, name in loaded.denoiser.parameter_names().items()},
        at(run, 6, "ema"),
    )
    newest = store.path_of(run / "checkpoints", 6)
    shown = describe(newest)
    assert shown["parameters"]["total"] == shown["tensors"]["master"]["elements"]
    assert shown["tensors"]["networks"]["tensors"] == len(values)
    found = []
    for path in (run, whole):
        capfd.readouterr()
        assert evaluate.main([str(path)]) == 0
        found.append(json.loads(capfd.readouterr().out)["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert run_on(pool, 2, held_out, run) == pytest.approx([found[0]] * 2, rel=1e-5)

    # Another run of the same method begins with the teacher of this one.
    fork = start(*taught, f"fork_from={run}", "seed=5", "stop_after=1", run="fork")
    assert same(at(fork, 1, "networks/teacher"), values)

    # An export has it no more: what asks it wants the named checkpoint again.
    strip_checkpoint(newest, tmp_path / "bare")
    assert Reader(tmp_path / "bare").kinds() == ["master"]
    assert evaluate.main([str(tmp_path / "bare")]) == 2
    assert f"the objective's network teacher: {old} is neither" in capfd.readouterr().err
    (tmp_path / "away").rename(old)
    capfd.readouterr()
    assert evaluate.main([str(tmp_path / "bare")]) == 0
    assert json.loads(capfd.readouterr().out)["loss"] == pytest.approx(found[0], rel=1e-5)


def test_what_cannot_be_is_said_before_any_rank_starts(
    start: Any, tiny: Any, tmp_path: Path
) -> None:
    old = start(*SMALL, "stop_after=1", run="teacher")
    newest = store.path_of(old / "checkpoints", 1)

    def refusal(*words: str, where: Path = old) -> str:
        file, *overrides = tiny("objective.name=distilled", f"objective.teacher={where}", *words)
        config = load(RunConfig, [Path(file)], overrides)
        with pytest.raises(UserError) as raised:
            preflight.check(config, tmp_path / "run")
        return str(raised.value)

    nowhere = tmp_path / "nowhere"
    assert refusal(where=nowhere) == (
        f"the objective's network teacher: {nowhere} is neither a checkpoint nor a run with one: "
        "train it first with `python -m pretrain`"
    )
    start = f"the objective's network teacher ({newest}): "
    end = "; choose a layout that it can be cut by as well"
    assert refusal("parallel.tensor=4") == (
        f"{start}model.num_heads (2) does not divide by parallel.tensor 4{end}"
    )
    assert refusal("parallel.pipeline=6", "model.num_layers=9") == (
        f"{start}parallel.pipeline 6 is more than the 5 layers (embedding, blocks, head){end}"
    )
    state = json.loads((newest / "state.json").read_text())
    state["config"]["model"]["vocab_size"] = 1000
    reseal(newest, config=state["config"])
    assert refusal() == (
        f"{start}its model.vocab_size is 1000, the run's is 1024: it must read the run's ids"
    )
    state["config"]["model"]["vocab_size"] = 1024
    reseal(newest, config=state["config"], tokenizer_sha256="0" * 64)
    assert "the objective's network teacher: the tokenizer of" in refusal()
    shutil.rmtree(old)
