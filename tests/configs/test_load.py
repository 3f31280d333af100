import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from configs.errors import UserError
from configs.load import (
    Plugin,
    is_override,
    load,
    merge,
    parse_override,
    read_yaml,
    to_plain,
    to_yaml,
    validate,
)
from model.objectives.mdlm import Mdlm
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from pretrain.config import RunConfig

Write = Callable[..., Path]


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1.0
    decay: float = 0.0
    steps: int = 1
    betas: tuple[float, float] = (0.5, 0.75)

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError(f"lr must not be negative, not {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int
    optim: Optim = Optim()
    schedule: Annotated[Any, Plugin("model.schedules")] = LogLinear()
    other: Optim | None = None
    folder: Path | None = None
    name: str | None = None


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def run_data() -> dict[str, Any]:
    return {
        "steps": 3,
        "global_batch": 4,
        "model": {"vocab_size": 16, "width": 8, "num_heads": 2, "num_layers": 1},
        "objective": {"name": "mdlm", "schedule": {"name": "cosine", "eps": 0.25}},
        "data": {"corpus": "demo", "sequence_length": 8},
    }


def problems(schema: type, data: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate(schema, data, where="here")
    first, *lines = str(caught.value).splitlines()
    noun = "problem" if len(lines) == 1 else "problems"
    assert first == f"{len(lines)} {noun} in here:"
    return [line.removeprefix("  ") for line in lines]


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
        ({"k": 1}, None, None),
    ],
)
def test_merge_replaces_a_block_whose_name_changes(base: Any, over: Any, merged: Any) -> None:
    assert merge({"block": base, "rest": 0}, {"block": over}) == {"block": merged, "rest": 0}


def test_settings_of_a_replaced_plugin_do_not_leak_into_the_new_one(write: Write) -> None:
    first = write("seed: 1\nschedule: {name: cosine, eps: 0.5}", "a.yaml")
    renamed = write("schedule: {name: loglinear}", "b.yaml")
    assert load(Config, [first, renamed]).schedule == LogLinear()
    assert load(Config, [first], ["schedule.name=loglinear"]).schedule == LogLinear()
    assert load(Config, [first], ["schedule.eps=0.25"]).schedule == Cosine(eps=0.25)


def test_a_bare_name_stands_for_a_plugin_block(write: Write) -> None:
    path = write("seed: 1\nschedule: cosine")
    assert load(Config, [path]).schedule == Cosine()
    assert load(Config, [path], ["schedule.eps=0.25"]).schedule == Cosine(eps=0.25)
    assert load(Config, [path], ["schedule=loglinear"]).schedule == LogLinear()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("3E4", 3e4),
        ("1e+3", 1e3),
        ("-2e-3", -2e-3),
        ("1.5e3", 1.5e3),
        ("1_0e3", 1e4),
        ("0.5", 0.5),
        ("3.", 3.0),
    ],
)
def test_numbers_with_an_exponent_are_floats(write: Write, text: str, value: float) -> None:
    read = read_yaml(write(f"a: {text}"))["a"]
    assert type(read) is float
    assert read == value
    assert parse_override(f"a={text}") == {"a": value}


@pytest.mark.parametrize("text", ["3e", "e4", "3e4x", "v3e4", "'3e-4'"])
def test_what_only_resembles_a_number_stays_text(write: Write, text: str) -> None:
    assert read_yaml(write(f"a: {text}")) == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "key", "first", "second"),
    [
        ("seed: 1\nname: x\nseed: 2\n", "seed", 1, 3),
        ("optim:\n  lr: 1\n  decay: 0\n  steps: 1\n  lr: 1\n", "lr", 2, 5),
        ("a: [{b: 1,\n b: 2}]\n", "b", 1, 2),
        ("1: x\n'1': y\n", "1", 1, 2),
    ],
)
def test_duplicate_keys_are_refused_with_both_lines(
    write: Write, text: str, key: str, first: int, second: int
) -> None:
    path = write(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert f"duplicate key '{key}' (first on line {first})" in message
    assert f"line {second}," in message
    assert str(path) in message


def test_the_same_key_in_different_blocks_is_no_duplicate(write: Write) -> None:
    assert read_yaml(write("a: {x: 1}\nb: {x: 2}")) == {"a": {"x": 1}, "b": {"x": 2}}


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


def test_an_unknown_plugin_lists_the_names_and_the_nearest() -> None:
    names = ", ".join(Plugin("model.schedules").names())
    (line,) = problems(Config, {"seed": 1, "schedule": "loglinaer"})
    assert line == "schedule: unknown schedule 'loglinaer'; did you mean 'loglinear'?"
    (line,) = problems(Config, {"seed": 1, "schedule": {"name": "qqqq", "eps": 1}})
    assert line == f"schedule: unknown schedule 'qqqq'; there are: {names}"
    (line,) = problems(RunConfig, {**run_data(), "objective": "mdml"})
    assert line.startswith("objective: unknown objective 'mdml'; did you mean 'mdlm'?")


def test_a_name_that_leaves_the_folder_is_unknown() -> None:
    (line,) = problems(Config, {"seed": 1, "schedule": "__init__"})
    assert line.startswith("schedule: unknown schedule '__init__'")


@pytest.mark.parametrize("block", [{}, {"eps": 0.1}, {"name": None}, {"name": 3}])
def test_a_plugin_block_without_a_name_is_refused(block: dict[str, Any]) -> None:
    (line,) = problems(Config, {"seed": 1, "schedule": block})
    assert line.startswith(f"schedule: unknown schedule {block.get('name')!r}")


@pytest.mark.parametrize("block", [3, None, ["loglinear"], True])
def test_a_plugin_needs_a_block_or_a_name(block: Any) -> None:
    (line,) = problems(Config, {"seed": 1, "schedule": block})
    assert line == "schedule: expected a block with a 'name'"


def test_the_folder_is_the_registry_and_only_the_named_module_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "palimpsest_test_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_private.py").touch()
    (package / "broken.py").write_text("raise RuntimeError('imported')")
    (package / "fine.py").write_text(
        "from dataclasses import dataclass\n"
        "from model.schedules.cosine import Cosine\n"
        "@dataclass(frozen=True)\n"
        "class Fine:\n"
        "    size: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugin = Plugin(package.name)
    assert plugin.names() == ["broken", "fine"]
    built = plugin.build({"name": "fine", "size": 4})
    assert (type(built).__name__, built.size) == ("Fine", 4)
    assert f"{package.name}.broken" not in sys.modules
    with pytest.raises(RuntimeError, match="imported"):
        plugin.build("broken")


def test_of_several_dataclasses_in_a_file_its_namesake_is_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "palimpsest_test_namesakes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "left_to_right.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Move:\n"
        "    size: int = 1\n"
        "@dataclass(frozen=True)\n"
        "class LeftToRight:\n"
        "    top: int = 1\n"
        "@dataclass(frozen=True)\n"
        "class _Left:\n"
        "    top: int = 1\n"
    )
    (package / "nameless.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Other:\n    a: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugin = Plugin(package.name)
    built = plugin.build({"name": "left_to_right", "top": 4})
    assert (type(built).__name__, built.top) == ("LeftToRight", 4)
    with pytest.raises(AssertionError, match="nameless must define a dataclass of its name"):
        plugin.resolve("nameless")


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(UserError) as caught:
        load(Config, [path])
    assert str(path) in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize(("text", "kind"), [("- 1\n- 2", "list"), ("words", "str"), ("3", "int")])
def test_yaml_that_is_no_mapping_is_refused(write: Write, text: str, kind: str) -> None:
    path = write(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: expected 'key: value' lines")
    assert kind in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_sets_nothing(write: Write, text: str) -> None:
    assert read_yaml(write(text)) == {}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: !!python/name:os.system", "a: {b"])
def test_malformed_or_unsafe_yaml_is_refused(write: Write, text: str) -> None:
    path = write(text)
    with pytest.raises(UserError, match="is not valid YAML") as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["2020-01-01", "1:30", "on", "No", "1.2.3", "0b11", "0o9", "=", "_1"]
)
def test_what_yaml_1_1_takes_for_something_else_is_text(write: Write, text: str) -> None:
    assert load(Config, [write(f"seed: 1\nname: {text}")]).name == text
    assert load(Config, [write(f"seed: 1\nname: '{text}'")]).name == text


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("a=3", {"a": 3}),
        ("a.b.c=3e-4", {"a": {"b": {"c": 3e-4}}}),
        ("a=", {"a": None}),
        ("a=b=c", {"a": "b=c"}),
        ("a=[1, x]", {"a": [1, "x"]}),
        ("a={b: true}", {"a": {"b": True}}),
        ("a='3'", {"a": "3"}),
    ],
)
def test_a_word_is_a_key_and_a_yaml_value(word: str, data: dict[str, Any]) -> None:
    assert parse_override(word) == data


@pytest.mark.parametrize("word", ["a", "", "=3", "a..b=3", ".a=3", "a.=3"])
def test_a_word_without_key_or_value_is_refused(word: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(word)
    assert str(caught.value).startswith(f"'{word}': expected key=value")


@pytest.mark.parametrize("word", ["a=[1", "a={b: 1, b: 2}"])
def test_a_word_with_a_malformed_value_is_refused(word: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(word)
    assert str(caught.value).startswith(f"'{word}': the value is not valid YAML")


def test_the_error_names_every_file(write: Write) -> None:
    first, second = write("seed: 1", "a.yaml"), write("sed: 1", "b.yaml")
    with pytest.raises(UserError) as caught:
        load(Config, [first, second])
    assert str(caught.value).startswith(f"1 problem in {first}, {second}:\n")


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
        "padding": "masked",
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


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(number: float) -> None:
    lines = problems(RunConfig, {**run_data(), "optim": {"lr": number}})
    assert "optim.lr: must be finite" in lines


def test_a_file_is_no_override_though_its_directory_holds_an_equals_sign() -> None:
    assert is_override("optim.lr=1e-3")
    assert is_override("data.corpus=some/where=else")
    assert not is_override("runs/optim.lr=1e-3/config.yaml")
    assert not is_override("configs/tiny.yaml")
