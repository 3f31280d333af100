"""One run under every layout: the same weights to begin with, noise, curve, bound, samples.

Truth is a plain PyTorch loop over the whole global batch, of samples most of which are
short. Adam's eps is 1e-6 here, since Adam magnifies rounding where gradients vanish.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import load, merge
from model.draws import Draws
from pretrain.config import RunConfig
from pretrain.data import open_corpus
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.build import build
from pretrain.parallel.mesh import Mesh
from pretrain.run.metrics import read_rows
from pretrain.step import TrainingStep
from pretrain.trial import OBJECTIVES, run_config
from tools.verify import cases, invariance, layouts
from tools.verify.layouts import Outcome, assemble, deviation
from tools.verify.reference_loop import PlainLoop

STEPS = 4
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "adaln": ("mdlm", {}),
    "tied": ("mdlm", {"model": {"tied_head": True}}),
    "llama": (
        "mdlm",
        {"model": {"mlp": "swiglu", "mlp_width": 64, "norm": "rmsnorm", "hide_padding": True}},
    ),
    "qwen": (
        "mdlm",
        {
            "model": {
                "name": "transformer",
                "mlp": "swiglu",
                "mlp_width": 64,
                "norm": "rmsnorm",
                "num_kv_heads": 1,
                "qk_norm": True,
                "qkv_bias": True,
                "shifted_output": True,
                "causal_annealing_steps": 3,
            }
        },
    ),
    "genie-release": (
        "genie",
        {
            "model": {
                "mlp": "geglu",
                "projection": "tanh",
                "output": "vector",
                "time": "additive",
                "positions": "learned",
                "max_positions": 64,
                "ignore_source_padding": True,
                "self_conditioning": True,
            },
            "objective": {
                "num_steps": 4,
                "times": "loss_second_moment",
                "self_conditioning": 0.5,
            },
        },
    ),
    **{name: (name, {}) for name in OBJECTIVES.names() if name != "mdlm"},
}
"""Objectives' trials, and other shapes of two of them; "adaln" is MDLM's trial."""
CONTAINED = {
    "1 rank": "4 micro-batches",
    "recompute": "recompute every second block",
    "data 2": "data 4",
    "tensor 2": "data 2 x tensor 2",
    "tensor 2, sequence parallel": "tensor 2, sequence parallel, recompute",
    "pipeline 2": "pipeline 2, recompute",
    "tensor 2 x pipeline 2": "tensor 2 x pipeline 2, sequence parallel",
}
"""Layouts that the tests leave to another, in which all that could go wrong in them can, too."""
LAYOUTS = [(c.ranks, c.parallel) for c in cases.CASES if c.ranks <= 4 and c.name not in CONTAINED]
CASES = [("adaln", size, layout) for size, layout in LAYOUTS]
SEQUENCE, RECOMPUTED = cases.SEQUENCE, {**cases.SEQUENCE, "recompute_every": 1}
GRID = {"tensor": 2, "pipeline": 2, "micro_batch": 4}
CUT = {"tensor": 2, "zero_stage": 3}
CASES += [(settings, 2, SEQUENCE) for settings in ("tied", "llama", "qwen")]
CASES += [(settings, 4, GRID) for settings in ("tied", "llama", "qwen", "genie")]
CASES += [(settings, 4, CUT) for settings in ("tied", "qwen", "genie", "genie-release")]
CASES += [
    ("genie", 1, {"micro_batch": 4, "recompute_every": 1}),
    ("genie", 2, {"zero_stage": 3}),
    ("genie", 2, RECOMPUTED),
    ("genie", 4, {"pipeline": 4, "micro_batch": 4}),
    ("genie-release", 2, {"zero_stage": 3}),
    ("genie-release", 4, {"pipeline": 2}),
    ("genie-release", 4, {**GRID, "sequence_parallel": True}),
]
OF_TRIALS = [(1, {"micro_batch": 4}), (2, cases.ALL_CUT), (4, {**GRID, "sequence_parallel": True})]
"""Tensor, sequence and pipeline parallelism are in the layout that has all three."""
CASES += [
    (objective, size, layout)
    for objective in OBJECTIVES.names()
    if objective not in ("mdlm", "genie")
    for size, layout in OF_TRIALS
]
QUICK: list[tuple[str, dict[str, Any]]] = [
    ("adaln", {}),
    ("adaln", {"tensor": 4}),
    ("adaln", {"pipeline": 4, "micro_batch": 4}),
    ("adaln", CUT),
    ("adaln", {**GRID, "sequence_parallel": True}),
    ("tied", GRID),
    ("genie", GRID),
]
"""Of four ranks, what is quick enough for every day."""


ENGINE = ("adaln", "tied", "llama", "qwen", "genie", "genie-release")
"""Whose cases are about the engine, or about shapes of networks."""


def config_of(settings: str, **changes: Any) -> RunConfig:
    objective, own = SETTINGS[settings]
    return run_config(objective, **merge(own, changes))


def marked(settings: str, size: int, layout: dict[str, Any]) -> Any:
    """Four ranks take longest: most of them run with the slow ones, as a second GENIE does."""
    slow = settings == "genie-release"
    if size == 4 and settings in ENGINE:
        slow = (settings, layout) not in QUICK
    return pytest.param(settings, size, layout, marks=[pytest.mark.slow] if slow else [])


def assert_same_curve(found: Outcome, truth: PlainLoop) -> None:
    assert deviation(found.losses, truth.losses) < 1e-5
    assert deviation(found.grad_norms, truth.grad_norms) < 1e-4


def name_of(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{key}{number}" for key, number in value.items()) or "data"
    return str(value)


@pytest.fixture(scope="module")
def plain() -> Any:
    """The plain loop after all its steps, by name of the settings."""
    found: dict[str, PlainLoop] = {}

    def loop(settings: str, **changes: Any) -> PlainLoop:
        key = f"{settings} {changes}"
        if key not in found:
            found[key] = PlainLoop(config_of(settings, **changes))
            for _ in range(STEPS):
                found[key].step()
        return found[key]

    return loop


@pytest.fixture(scope="module")
def one(pool: Pool) -> Any:
    """The run on one rank, by name of the settings."""
    found: dict[str, Outcome] = {}

    def outcome(settings: str) -> Outcome:
        if settings not in found:
            (found[settings],) = pool.run(1, layouts.run, config_of(settings), STEPS)
        return found[settings]

    return outcome


@pytest.mark.parametrize(
    ("settings", "size", "layout"), [marked(*case) for case in CASES], ids=name_of
)
def test_the_layout_changes_nothing(
    pool: Pool, plain: Any, one: Any, settings: str, size: int, layout: dict[str, Any]
) -> None:
    config = config_of(settings, parallel=layout)
    outcomes, single = pool.run(size, layouts.run, config, STEPS), one(settings)
    initial = assemble(single.initial)
    for comparison in invariance.compare(outcomes, [single], plain(settings), initial):
        assert comparison.holds, comparison
    if single.logits is not None:
        assert layouts.near_ties(config, single.logits, invariance.TIE).sum() <= 1


def steps_alone(world: World, config: RunConfig, steps: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step on a run's corpus, with nothing of a trainer around."""
    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    draws = Draws(seed=config.seed, split="train", batch=config.global_batch)
    corpus, engine = open_corpus(config, draws), build(config, mesh)
    read = partial(corpus.batch, device=mesh.device)
    training = TrainingStep(config, engine, mesh, read, corpus.facts)
    found = []
    for step in range(1, steps + 1):
        micro_batches = training.corrupt(step, training.read(step))
        counts, _ = training.all_reduce_counts(micro_batches)
        sums = training.run(step, micro_batches, counts)
        found.append((training.losses(sums, counts).total, engine.grad_norm))
    mesh.close()
    return found


def test_the_trainer_takes_the_steps_of_these_cases(pool: Pool, train, tiny, tmp_path) -> None:
    """Bit by bit: so what holds for the steps under a layout holds for a run under it."""
    words = ("parallel.tensor=2", "parallel.pipeline=2", "parallel.micro_batch=4", "stop_after=4")
    train(*words, "eval.every=2", "checkpoint.every=2")
    file, *overrides = tiny(*words)
    config = load(RunConfig, [Path(file)], overrides)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    found = [(row["loss"], row["grad_norm"]) for row in rows if "loss" in row]
    assert len(found) == 4
    assert found == pool.run(4, steps_alone, config, 4)[0]


def test_what_contains_a_layout_is_among_the_cases() -> None:
    names = {case.name for case in cases.CASES}
    assert set(CONTAINED) <= names
    assert set(CONTAINED.values()) <= names - set(CONTAINED)


def test_one_rank_is_the_plain_loop(plain: Any, one: Any) -> None:
    loop = plain("adaln")
    final = assemble(one("adaln").final)
    for parameter, name in loop.denoiser.parameter_names().items():
        torch.testing.assert_close(final[name], parameter.detach(), rtol=0, atol=2e-5)


def test_noise_differs_between_stream_positions(one: Any) -> None:
    noise = one("adaln").noise
    assert len(noise) == STEPS * 16
    assert len(set(noise.values())) == len(noise)


def test_the_global_norm_is_clipped(pool: Pool, plain: Any) -> None:
    """A clip far below the norm acts at every step, on ranks that hold different parts."""
    changes = {"optim": {"clip": 0.05}}
    truth = plain("adaln", **changes)
    assert min(truth.grad_norms) > 0.1
    for layout in (GRID, CUT):
        config = config_of("adaln", **changes, parallel=layout)
        assert_same_curve(pool.run(4, layouts.train, config, STEPS)[0], truth)


BF16 = [
    (2, {"pipeline": 2}),
    (2, {"tensor": 2, "sequence_parallel": True}),
    (2, {"zero_stage": 2}),
    (4, GRID),
    (4, CUT),
]


@pytest.mark.parametrize("settings", [pytest.param("adaln", marks=pytest.mark.slow), "tied"])
def test_in_bf16_the_curves_agree_to_two_percent(pool: Pool, settings: str) -> None:
    """The head's own gradient too, which DeepSpeed's pipeline would drop (see pipeline.py)."""
    (truth,) = pool.run(1, layouts.train, config_of(settings, precision="bf16"), STEPS)
    for size, layout in BF16 if settings == "adaln" else BF16[:1]:
        config = config_of(settings, precision="bf16", parallel=layout)
        found = pool.run(size, layouts.train, config, STEPS)[0]
        assert deviation(found.losses, truth.losses) < 0.02, layout
        assert deviation(found.grad_norms, truth.grad_norms) < 0.02, layout


def test_recomputed_blocks_gather_parameters_that_are_all_cut(pool: Pool, plain: Any) -> None:
    config = config_of("adaln", parallel={"tensor": 2, "recompute_every": 1, **cases.ALL_CUT})
    assert_same_curve(pool.run(4, layouts.train, config, STEPS)[0], plain("adaln"))


def test_pieces_of_a_parameter_that_disagree_are_found(one: Any) -> None:
    pieces = one("adaln").initial
    changed = [(shards, value + 1) for shards, value in pieces[:1]]
    with pytest.raises(ValueError, match="two ranks hold different values"):
        assemble([*pieces, *changed])
    shards, value = pieces[0]
    short = dataclasses.replace(shards, num=shards.num - 1)
    with pytest.raises(ValueError, match="no rank holds all of"):
        assemble([(short, value[:-1])])
