"""Parameters that are not trained: alike under every layout, in checkpoints, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import UserError
from configs.load import named_plain
from model.networks.build import build
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.launch.pool import Pool
from pretrain.run.stored_config import stored_model
from pretrain.trial import run_config
from tools.verify import layouts
from tools.verify.cases import ALL_CUT
from tools.verify.layouts import assemble, deviation
from tools.verify.reference_loop import PlainLoop

STEPS = 3
TABLE = "layers.0.tokens.weight"
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "table": ("mdlm", {"frozen": [TABLE]}),
    "tied": ("mdlm", {"frozen": ["*.tokens.weight"], "tied_head": True}),
    "much": (
        "mdlm",
        {"frozen": ["layers.0.*", "layers.[34].*", "*.bias"], "time_conditioning": False},
    ),
    "genie": ("genie", {"frozen": [TABLE]}),
}
ZERO: list[tuple[int, dict[str, Any]]] = [(2, {"zero_stage": stage}) for stage in (1, 2, 3)]
TENSOR, PIPELINE = (2, {"tensor": 2}), (2, {"pipeline": 2})
BOTH = (4, {"tensor": 2, "pipeline": 2, "micro_batch": 4})
CASES = [("table", *case) for case in ((1, {}), *ZERO, TENSOR, PIPELINE)]
CASES += [(name, *case) for name in ("tied", "genie") for case in (ZERO[2], PIPELINE, BOTH)]
CASES += [("much", *case) for case in (ZERO[1], ZERO[2], PIPELINE)]


def config_of(settings: str, **changes: Any) -> RunConfig:
    objective, model = SETTINGS[settings]
    return run_config(objective, model=model, **changes)


@pytest.fixture(scope="module")
def plain() -> Any:
    found: dict[str, PlainLoop] = {}

    def loop(settings: str) -> PlainLoop:
        if settings not in found:
            found[settings] = PlainLoop(config_of(settings))
            for _ in range(STEPS):
                found[settings].step()
        return found[settings]

    return loop


def frozen_names(loop: PlainLoop) -> set[str]:
    names = loop.denoiser.parameter_names().items()
    return {name for parameter, name in names if not parameter.requires_grad}


@pytest.mark.parametrize(("settings", "size", "layout"), CASES)
def test_what_is_frozen_stays_and_the_rest_is_trained_as_in_one_process(
    pool: Pool, plain: Any, settings: str, size: int, layout: dict[str, Any]
) -> None:
    config = config_of(settings, parallel=layout)
    outcomes = pool.run(size, layouts.train, config, STEPS, timeout_s=120)
    truth, first = plain(settings), outcomes[0]
    assert deviation(first.losses, truth.losses) < 1e-5
    assert deviation(first.grad_norms, truth.grad_norms) < 1e-4
    assert deviation(first.grad_norms[:1], truth.grad_norms[:1]) < 1e-6
    before = assemble([piece for outcome in outcomes for piece in outcome.initial])
    after = assemble([piece for outcome in outcomes for piece in outcome.final])
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert frozen_names(truth) == same
    drawn = build(config.model, seed=config.seed).parameter_names()
    assert {name: value.shape for name, value in before.items()} == {
        name: parameter.shape for parameter, name in drawn.items()
    }
    for parameter, name in drawn.items():
        assert torch.equal(before[name], parameter.detach())


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ("table", {"zero_stage": 1}),
        ("table", {"zero_stage": 2}),
        ("genie", {"zero_stage": 3}),
        ("tied", {"pipeline": 2}),
    ],
)
def test_in_bf16_the_exact_values_stay(pool: Pool, settings: str, layout: dict[str, Any]) -> None:
    """And with every parameter cut under ZeRO 3."""
    cut = {**layout, "param_persistence_threshold": 0}
    config = config_of(settings, precision="bf16", parallel=cut)
    outcomes = pool.run(2, layouts.train, config, STEPS, timeout_s=120)
    (one,) = pool.run(1, layouts.train, config_of(settings, precision="bf16"), STEPS)
    assert deviation(outcomes[0].losses, one.losses) < 0.02
    assert deviation(outcomes[0].grad_norms, one.grad_norms) < 0.02
    after = assemble([piece for outcome in outcomes for piece in outcome.final])
    for parameter, name in build(config.model, seed=config.seed).parameter_names().items():
        assert torch.equal(after[name], parameter.detach()) != parameter.requires_grad, name


def test_zero_3_with_every_parameter_cut(pool: Pool, plain: Any) -> None:
    config = config_of("table", parallel=ALL_CUT)
    first = pool.run(2, layouts.train, config, STEPS)[0]
    assert deviation(first.losses, plain("table").losses) < 1e-5
    assert deviation(first.grad_norms[:1], plain("table").grad_norms[:1]) < 1e-6


# -- checkpoints --------------------------------------------------------------------------

EXACT = ("precision=fp32", "eval.every=0", "ema.decay=0.9", "optim.weight_decay=0.1")
FROZEN = f"model.frozen=[{TABLE}, layers.1.mlp.*]"
IS_FROZEN = {TABLE, *(f"layers.1.mlp.{part}" for part in ("up.weight", "up.bias"))}
IS_FROZEN |= {f"layers.1.mlp.{part}" for part in ("down.weight", "down.bias")}


def at(run: Path, step: int, kind: str) -> dict[str, torch.Tensor]:
    return dict(Reader(store.path_of(run / "checkpoints", step)).whole(kind))


def test_checkpoints_hold_it_and_any_layout_goes_on(train, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = (*EXACT, FROZEN, "model.tied_head=true", "checkpoint.keep_last=9")
    train(*words, "stop_after=6", run="whole")
    train(*words, "stop_after=2", "parallel.data=2", "parallel.zero_stage=3")
    train(*words, "stop_after=4", "parallel.tensor=2", "parallel.pipeline=2")
    train(*words, "stop_after=6", "parallel.data=2", "parallel.zero_stage=2")
    config = load_denoiser(run, "raw").config
    initial = build(config.model, seed=config.seed).parameter_names()
    moments = set(initial.values()) - IS_FROZEN
    for step in (2, 4, 6):
        assert at(run, step, "exp_avg").keys() == at(run, step, "exp_avg_sq").keys() == moments
        master, average = at(run, step, "master"), at(run, step, "ema")
        assert master.keys() == average.keys() == set(initial.values())
        for parameter, name in initial.items():
            assert torch.equal(master[name], parameter.detach()) == (name in IS_FROZEN)
            assert torch.equal(average[name], parameter.detach()) == (name in IS_FROZEN)
    for name, value in at(whole, 6, "master").items():
        torch.testing.assert_close(at(run, 6, "master")[name], value, rtol=0, atol=1e-4)
    loaded = load_denoiser(run, "ema").denoiser.parameter_names()
    assert {name for parameter, name in loaded.items() if not parameter.requires_grad} == IS_FROZEN


def test_forks_freeze_what_was_trained_and_train_what_was_frozen(train, tmp_path: Path) -> None:
    train(*EXACT, "stop_after=3", run="old")
    old = tmp_path / "old"
    train(*EXACT, FROZEN, f"fork_from={old}", "steps=1", "parallel.data=2", run="averaged")
    kept = ("fork_weights=raw", "fork_optimizer=kept")
    train(*EXACT, FROZEN, f"fork_from={old}", *kept, "steps=1", "parallel.tensor=2", run="raw")
    for run, kind in (("averaged", "ema"), ("raw", "master")):
        before, after = at(old, 3, kind), at(tmp_path / run, 1, "master")
        same = {name for name, value in after.items() if torch.equal(value, before[name])}
        assert same == IS_FROZEN
    train(*EXACT, f"fork_from={tmp_path / 'raw'}", "steps=1", run="again")
    assert not torch.equal(at(tmp_path / "again", 1, "ema")[TABLE], at(old, 3, "master")[TABLE])


# -- words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"frozen": ["layers.0.token.weight"]}},
            "model.frozen: no parameter's name is like 'layers.0.token.weight'; names are "
            "layers.0.tokens.weight, ..., layers.5.modulation.bias",
        ),
        ({"model": {"frozen": ["layers.*"]}}, "model.frozen leaves nothing to train"),
        (
            {"model": {"frozen": ["layers.[3-5].*"]}, "parallel": {"pipeline": 2}},
            "model.frozen leaves nothing to train in layers 3 to 5, a stage of the pipeline",
        ),
    ],
)
def test_what_cannot_be_is_said_while_the_configuration_is_read(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        run_config("mdlm", **changes)
    assert message in str(raised.value)


def test_the_patterns_travel_with_the_architecture() -> None:
    model = config_of("tied").model
    assert stored_model(named_plain(model), "test") == model
