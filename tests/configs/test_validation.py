"""What a schema refuses: values, unknown keys and names, all of them at once."""

import math
from typing import Any

import pytest
from schemas import Config, Write, problems, run_data

from configs.errors import UserError
from configs.load import (
    load,
    merge,
    parse_override,
    validate,
)
from pretrain.config import RunConfig


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"seed": True}, "seed: input should be a valid integer, not True"),
        ({"seed": 1.0}, "seed: input should be a valid integer, not 1.0"),
        ({"seed": "1"}, "seed: input should be a valid integer, not '1'"),
        ({"seed": None}, "seed: input should be a valid integer, not None"),
        ({"optim": {"steps": False}}, "optim.steps: input should be a valid integer, not False"),
        ({"optim": {"lr": True}}, "optim.lr: input should be a valid number, not True"),
        ({"optim": {"lr": "1"}}, "optim.lr: input should be a valid number, not '1'"),
        ({"other": {"steps": True}}, "other.steps: input should be a valid integer, not True"),
        ({"schedule": {"name": "cosine", "eps": True}}, "schedule.eps: input should be a valid"),
        ({"name": 3}, "name: input should be a valid string, not 3"),
    ],
)
def test_values_of_another_type_are_refused(block: dict[str, Any], problem: str) -> None:
    (line,) = problems(Config, {"seed": 1, **block})
    assert line.startswith(problem)


def test_an_integer_is_a_float_where_one_is_asked_for() -> None:
    config = validate(
        Config,
        {"seed": 1, "optim": {"lr": 3, "betas": [0, 1]}, "schedule": {"name": "cosine", "eps": 0}},
        "here",
    )
    values = (config.optim.lr, *config.optim.betas, config.schedule.eps)
    assert values == (3.0, 0.0, 1.0, 0.0)
    assert {type(value) for value in values} == {float}


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"sed": 1}, "sed: unknown key; did you mean 'seed'?"),
        ({"optim": {"lrr": 1}}, "optim.lrr: unknown key; did you mean 'lr'?"),
        ({"other": {"decai": 1}}, "other.decai: unknown key; did you mean 'decay'?"),
        (
            {"schedule": {"name": "cosine", "epz": 0}},
            "schedule.epz: unknown key; did you mean 'eps'?",
        ),
        (
            {"optim": {"qqqq": 1}},
            "optim.qqqq: unknown key; known here: lr, decay, steps, betas",
        ),
        (
            {"schedule": {"name": "cosine", "qqqq": 1}},
            "schedule.qqqq: unknown key; known here: name, eps",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_or_all(block: dict[str, Any], problem: str) -> None:
    assert problems(Config, {"seed": 1, **block}) == [problem]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key; did you mean 'lr'?"),
        ("optim.schedule.warmupp=1", "optim.schedule.warmupp: unknown key; did you mean 'warmup'?"),
        ("model.num_layer=1", "model.num_layer: unknown key; did you mean 'num_layers'?"),
        ("objective.t_mn=0.1", "objective.t_mn: unknown key; did you mean 't_min'?"),
        (
            "objective.schedule.epz=0.1",
            "objective.schedule.epz: unknown key; did you mean 'eps'?",
        ),
    ],
)
def test_an_unknown_key_of_a_run_names_the_nearest(word: str, problem: str) -> None:
    assert problems(RunConfig, merge(run_data(), parse_override(word))) == [problem]


def test_keys_of_a_plugin_given_by_its_bare_name_are_known(write: Write) -> None:
    path = write("seed: 1\nschedule: cosine")
    with pytest.raises(UserError, match=r"schedule\.epz: unknown key; did you mean 'eps'\?"):
        load(Config, [path], ["schedule.epz=1"])


def test_every_problem_is_reported_at_once() -> None:
    data = merge(
        run_data(),
        {
            "steps": True,
            "sed": 1,
            "optim": {"lr": -1},
            "ema": {"decay": 2},
            "model": {"width": 9},
            "objective": {"schedul": 1, "schedule": {"eps": 3}},
        },
    )
    del data["global_batch"]
    assert sorted(problems(RunConfig, data)) == [
        "ema.decay must lie in [0, 1), not 2.0",
        "global_batch: missing, and it has no default",
        "model.width: width 9 is not divisible by 2 heads",
        "objective.schedul: unknown key; did you mean 'schedule'?",
        "objective.schedule.eps must lie in [0, 1), not 3.0",
        "optim.lr must be at least 0, not -1.0",
        "sed: unknown key; did you mean 'seed'?",
        "steps: input should be a valid integer, not True",
    ]


def test_a_refusal_by_the_outermost_class_stands_without_a_key() -> None:
    assert problems(RunConfig, {**run_data(), "steps": 0}) == ["steps must be at least 1, not 0"]


def test_the_error_names_every_file(write: Write) -> None:
    first, second = write("seed: 1", "a.yaml"), write("sed: 1", "b.yaml")
    with pytest.raises(UserError) as caught:
        load(Config, [first, second])
    assert str(caught.value).startswith(f"1 problem in {first}, {second}:\n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(number: float) -> None:
    lines = problems(RunConfig, {**run_data(), "optim": {"lr": number}})
    assert "optim.lr: must be finite" in lines
