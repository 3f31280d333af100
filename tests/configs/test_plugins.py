"""Plugins: a folder is the registry, a block or a bare name chooses from it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from schemas import Config, Write, problems, run_data

from configs.load import (
    Plugin,
    load,
)
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from pretrain.config import RunConfig


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
    assert package.name not in sys.modules
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
