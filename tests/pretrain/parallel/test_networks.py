"""Frozen networks that an objective names: alike under every layout, and in the run's checkpoints.

The method that asks one is ``methods/distilled.py``.
"""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import model.objectives
from configs.errors import UserError
from configs.load import load
from model.draws import Draws
from model.networks.build import build
from model.objectives import Noisy
from model.prediction import Networks, Prediction
from pretrain.checkpoint import frozen_networks, manifest, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import ParallelConfig, RunConfig
from pretrain.evaluation.bound import mean_losses
from pretrain.launch import preflight
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.parallel.frozen_network import DTYPES
from pretrain.parallel.mesh import Mesh
from pretrain.planner.plan import plan
from pretrain.run.directory import RunDirectory, run_path
from pretrain.run.metrics import read_rows
from tools.convert import write
from tools.convert.strip import strip_checkpoint
from tools.convert.tensors import of_dict
from tools.evaluate import __main__ as evaluate
from tools.inspect import describe
from tools.verify import layouts
from tools.verify.layouts import deviation
from tools.verify.reference_loop import PlainLoop
from tools.verify.synthetic import SyntheticStream, batch, run_config

METHODS = str(Path(__file__).with_name("methods"))
STEPS = 3
DRAWS = Draws(seed=0, split="train", batch=4)


@contextmanager
def installed() -> Iterator[None]:
    """With the method of this folder among the others."""
    model.objectives.__path__.append(METHODS)
    try:
        yield
    finally:
        model.objectives.__path__.remove(METHODS)


@pytest.fixture(scope="module", autouse=True)
def method() -> Iterator[None]:
    with installed():
        yield


def in_rank(world: World, pickled: bytes) -> Any:
    """What is pickled names a class that only those find who have installed the method."""
    with installed():
        target, args = pickle.loads(pickled)
        return target(world, *args)


def run_on(pool: Pool, size: int, target: Callable[..., Any], *args: Any) -> list[Any]:
    found: list[Any] = pool.run(size, in_rank, pickle.dumps((target, args)), timeout_s=200)
    return found


# -- the numbers --------------------------------------------------------------------------

TEACHER = {"width": 16, "num_layers": 3, "num_heads": 2, "tied_head": True}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network of another size, with weights that make it sure of things."""
    config = run_config("mdlm", model=TEACHER)
    generator = torch.Generator().manual_seed(1)
    values = {
        name: parameter.detach() + 0.3 * torch.randn(parameter.shape, generator=generator)
        for parameter, name in build(config.model).parameter_names().items()
    }
    path = tmp_path_factory.mktemp("teacher") / "checkpoint"
    state = write.state_of(config, step=7, tokens_seen=0, facts={})
    write.write_checkpoint(path, of_dict(values, "the test"), state, write.SHARD_BYTES)
    return path


def config_of(teacher: Path, **changes: Any) -> RunConfig:
    changes["objective"] = {"name": "distilled", "teacher": str(teacher)}
    return run_config("mdlm", **changes)


@pytest.fixture(scope="module")
def plain(teacher: Path) -> PlainLoop:
    loop = PlainLoop(config_of(teacher))
    for _ in range(STEPS):
        loop.step()
    return loop


CASES: list[tuple[int, dict[str, Any]]] = [
    (2, {"zero_stage": 1}),
    (2, {"zero_stage": 3}),
    (2, {"tensor": 2, "sequence_parallel": True}),
    (2, {"pipeline": 2}),
    (4, {"tensor": 2, "pipeline": 2, "micro_batch": 4}),
    (4, {"tensor": 2, "zero_stage": 3}),
]


@pytest.mark.parametrize(("size", "layout"), CASES)
def test_every_layout_learns_what_one_process_learns(
    pool: Pool, teacher: Path, plain: PlainLoop, size: int, layout: dict[str, Any]
) -> None:
    """Training and held-out losses, which both ask the teacher."""
    config = config_of(teacher, parallel=layout)
    first = run_on(pool, size, layouts.run, config, STEPS)[0]
    assert deviation(first.losses, plain.losses) < 1e-5
    assert deviation(first.grad_norms, plain.grad_norms) < 1e-4
    assert deviation(first.grad_norms[:1], plain.grad_norms[:1]) < 1e-6
    stream = SyntheticStream(config)
    with torch.no_grad():
        held_out = mean_losses(
            plain.ask, config.objective, config.model, stream, seed=0, num=len(stream), batch=2
        ).losses(config.objective)
    assert first.document_nats == pytest.approx(list(held_out.values()), rel=1e-4)


@dataclass(frozen=True)
class Asked:
    """Of a rank, once the teacher has been asked.

    Args:
        weights, values: elements of its weights, and of its exact values.
    """

    weights: int
    values: int
    logits: torch.Tensor


def asked(world: World, config: RunConfig) -> Asked:
    mesh = Mesh(world)
    torch.set_num_threads(1)
    network = frozen_networks.named(config, mesh)["teacher"]
    logits = network.ask(noisy_of(config), logits_of)
    parameters = network._forward._network.parameters()
    ((values,),) = network.flats.kinds.values()
    mesh.close()
    return Asked(sum(parameter.numel() for parameter in parameters), values.numel(), logits)


def noisy_of(config: RunConfig) -> Noisy:
    noisy: Noisy = config.objective.corrupt(batch(config, DRAWS, range(4)), DRAWS, config.model)
    return noisy


def logits_of(found: Prediction) -> torch.Tensor:
    assert found.logits is not None
    return found.logits.logits_MR


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_under_zero_3_no_rank_has_it_whole_and_it_answers_bit_by_bit_as_one_that_is(
    pool: Pool, teacher: Path, precision: str
) -> None:
    config = config_of(teacher, precision=precision)
    alone = load_denoiser(teacher, "ema").denoiser.to(DTYPES[precision])
    with torch.no_grad():
        truth = alone.ask(noisy_of(config), logits_of)
    total = sum(parameter.numel() for parameter in alone.parameters())
    for stage, weights in ((2, total), (3, 0)):
        parallel = replace(config.parallel, zero_stage=stage)
        ranks = run_on(pool, 2, asked, replace(config, parallel=parallel))
        assert [rank.weights for rank in ranks] == [weights, weights]
        assert sum(rank.values for rank in ranks) == total
        assert max(rank.values for rank in ranks) < 0.51 * total
        for rank in ranks:
            assert rank.logits.dtype == DTYPES[precision]
            assert torch.equal(rank.logits, truth)


def test_the_teacher_matters(plain: PlainLoop) -> None:
    """Or none of the above would say anything."""
    loop = PlainLoop(plain.config)
    loop.ask = Networks(loop.denoiser.ask, {"teacher": loop.denoiser.ask})
    loop.step()
    assert deviation(loop.losses, plain.losses[:1]) > 0.01


def test_a_name_that_is_unknown_is_told_with_those_that_are_known() -> None:
    def ask(query: Any, read: Any) -> Any:
        raise AssertionError("nobody was to be asked")

    networks: Any = Networks(ask, {"teacher": ask})
    with pytest.raises(ValueError, match="no network is called pupil, there are: own, teacher;"):
        networks(None, None, network="pupil")


# -- checkpoints --------------------------------------------------------------------------

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
    found = evaluate.held_out_loss(loaded, "valid", which="ema", batch=32, seed=0)
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


# -- words --------------------------------------------------------------------------------


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
    reseal(newest, state)
    assert refusal() == (
        f"{start}its model.vocab_size is 1000, the run's is 1024: it must read the run's ids"
    )
    state["config"]["model"]["vocab_size"] = 1024
    reseal(newest, {**state, "tokenizer_sha256": "0" * 64})
    assert "the objective's network teacher: the tokenizer of" in refusal()
    shutil.rmtree(old)


def reseal(path: Path, state: dict[str, Any]) -> None:
    """Another state, with the checksums that go with it."""
    file = path / "state.json"
    file.write_text(json.dumps(state))
    files = dict(manifest.read(path)["files"])
    files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    (path / store.MANIFEST).write_text(manifest.text_of(files))


def test_a_name_that_no_tensor_can_have_is_refused(teacher: Path) -> None:
    config = config_of(teacher)

    class Odd(type(config.objective)):  # type: ignore[misc]
        @property
        def networks(self) -> dict[str, str]:
            return {"own": "x", "a/b": "y"}

    odd = Odd(teacher="z")
    with pytest.raises(ValueError, match=r"'own' is no name for a network.*\n.*'a/b' is no name"):
        replace(config, objective=odd)
