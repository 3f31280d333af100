"""A configuration of a former version means what it meant, and no run changes in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import UserError
from configs.load import to_plain, to_yaml
from pretrain.config import RunConfig, differences
from pretrain.run.directory import RunDirectory
from pretrain.run.stored_config import stored_config
from pretrain.trial import run_config


def of_old(packing: str, **objective: Any) -> tuple[RunConfig, dict[str, Any]]:
    """A configuration of today, and how a version wrote it that knew no ``padding``."""
    config = run_config("mdlm", data={"packing": packing}, objective=objective)
    plain = to_plain(config)
    del plain["objective"]["padding"]
    return config, plain


def test_padding_was_visible() -> None:
    _, plain = of_old("pad")
    before = {**plain, "objective": dict(plain["objective"])}
    config = stored_config(plain, "a checkpoint")
    assert config.objective.padding == "visible"
    assert plain == before
    for written in ("masked", "generated"):
        plain["objective"]["padding"] = written
        assert stored_config(plain, "a checkpoint").objective.padding == written
    plain["objective"] = "mdlm"
    assert stored_config(plain, "a checkpoint").objective.padding == "visible"


def test_a_run_without_padding_is_the_run_that_it_was() -> None:
    config, plain = of_old("wrap")
    assert differences(stored_config(plain, "a checkpoint"), config) == []


def test_a_padded_run_is_told_and_may_go_on_as_it_was(tmp_path: Path) -> None:
    config, plain = of_old("pad")
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config)
    directory.config.write_text(yaml.safe_dump(plain))
    with pytest.raises(UserError, match=r"objective\.padding: was visible, is masked"):
        directory.check(config)
    directory.check(run_config("mdlm", data={"packing": "pad"}, objective={"padding": "visible"}))
    directory.config.write_text(to_yaml(config))
    directory.check(config)


def test_what_is_damaged_is_still_an_error_of_its_own() -> None:
    for odd in ({"objective": 3, "data": 4}, {}, {"objective": {"name": "mdlm"}}):
        with pytest.raises(UserError, match="in a checkpoint"):
            stored_config(odd, "a checkpoint")
