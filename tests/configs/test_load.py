"""A configuration from files and words: which wins, and plain data that reads back."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas import Config, Optim, Write, run_data

from configs.errors import UserError
from configs.load import (
    Plugin,
    is_override,
    load,
    merge,
    to_plain,
    to_yaml,
    validate,
)
from model.objectives.mdlm import Mdlm
from model.schedules.cosine import Cosine
from pretrain.config import RunConfig


def test_later_files_win_key_by_key(write: Write) -> None:
    first = write("seed: 1\noptim: {lr: 2.0, decay: 3.0}", "a.yaml")
    second = write("optim: {lr: 4.0}", "b.yaml")
    assert load(Config, [first, second]) == Config(seed=1, optim=Optim(lr=4.0, decay=3.0))
    assert load(Config, [second, first]) == Config(seed=1, optim=Optim(lr=2.0, decay=3.0))


def test_words_win_over_files_and_later_words_over_earlier(write: Write) -> None:
    path = write("seed: 1\noptim: {lr: 2.0, decay: 3.0}")
    words = ["optim.lr=5", "seed=7", "optim.lr=6"]
    assert load(Config, [path], words) == Config(seed=7, optim=Optim(lr=6.0, decay=3.0))


def test_words_alone_are_enough() -> None:
    assert load(Config, [], ["seed=3"]) == Config(seed=3)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"name": "x", "k": 1}, {"name": "y"}, {"name": "y"}),
        ({"name": "x", "k": 1}, {"name": "y", "j": 2}, {"name": "y", "j": 2}),
        ({"name": "x", "k": 1}, {"name": "x", "j": 2}, {"name": "x", "k": 1, "j": 2}),
        ({"name": "x", "k": 1}, {"j": 2}, {"name": "x", "k": 1, "j": 2}),
        ({"k": 1}, {"j": 2}, {"k": 1, "j": 2}),
        ({"k": {"name": "x", "a": 1}}, {"k": {"name": "y"}}, {"k": {"name": "y"}}),
        ("x", {"j": 2}, {"name": "x", "j": 2}),
        ("x", {"name": "y", "j": 2}, {"name": "y", "j": 2}),
        ({"name": "x", "k": 1}, "y", "y"),
        ([1, 2], [3], [3]),
        ({"name": "x", "k": 1}, {"name": [3]}, {"name": [3]}),
        ({"k": 1}, None, None),
    ],
)
def test_merge_replaces_a_block_whose_name_changes(base: Any, over: Any, merged: Any) -> None:
    assert merge({"block": base, "rest": 0}, {"block": over}) == {"block": merged, "rest": 0}


CONFIGS = [
    Config(seed=1),
    Config(
        seed=2,
        optim=Optim(lr=3e-4, betas=(0.125, 1e-9)),
        schedule=Cosine(eps=0.25),
        other=Optim(steps=5),
        folder=Path("runs/a b"),
        name="3e-4",
    ),
    validate(RunConfig, run_data(), "here"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_plain_data_reads_back_as_the_same_configuration(config: Any) -> None:
    assert validate(type(config), to_plain(config), "here") == config


@pytest.mark.parametrize("config", CONFIGS)
def test_yaml_reads_back_as_the_same_configuration(config: Any, write: Write) -> None:
    text = to_yaml(config)
    assert yaml.safe_load(text) == to_plain(config)
    assert load(type(config), [write(text)]) == config


def test_plain_data_holds_every_field_in_order_and_names_the_plugins() -> None:
    plain = to_plain(CONFIGS[1])
    assert list(plain) == ["seed", "optim", "schedule", "other", "folder", "name"]
    assert plain["schedule"] == {"name": "cosine", "eps": 0.25}
    assert plain["optim"]["betas"] == [0.125, 1e-9]
    assert plain["folder"] == "runs/a b"
    assert to_plain(CONFIGS[2])["objective"] == {
        "name": "mdlm",
        "schedule": {"name": "cosine", "eps": 0.25},
        "t_min": Mdlm().t_min,
        "times": "uniform",
        "num_steps": None,
        "padding": "masked",
        "estimator": Mdlm().estimator,
    }


def test_plugins_inside_plugins_are_built() -> None:
    assert CONFIGS[2].objective == Mdlm(schedule=Cosine(eps=0.25))


def test_no_argument_is_changed() -> None:
    base, over = run_data(), {"objective": {"t_min": 0.5, "schedule": {"eps": 0.5}}}
    base_before, over_before = copy.deepcopy(base), copy.deepcopy(over)
    merged = merge(base, over)
    assert merged["objective"]["schedule"] == {"name": "cosine", "eps": 0.5}
    merged_before = copy.deepcopy(merged)
    validate(RunConfig, merged, "here")
    with pytest.raises(UserError):
        validate(Config, merged, "here")
    assert (base, over, merged) == (base_before, over_before, merged_before)
    block = {"name": "cosine", "eps": 0.5}
    Plugin("model.schedules").build(block)
    assert block == {"name": "cosine", "eps": 0.5}


def test_a_file_is_no_override_though_its_directory_holds_an_equals_sign() -> None:
    assert is_override("optim.lr=1e-3")
    assert is_override("data.corpus=some/where=else")
    assert not is_override("runs/optim.lr=1e-3/config.yaml")
    assert not is_override("configs/tiny.yaml")
