"""The method that the README writes down trains, is validated, and is told what it lacks."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.evaluation.bound import mean_losses
from pretrain.trial import SyntheticStream, run_config
from tools.verify.reference_loop import PlainLoop


@pytest.fixture(scope="module")
def method(root: Path) -> Any:
    text = (root / "README.md").read_text(encoding="utf-8").partition("## Add a method")[2]
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {"__name__": "model.objectives.fill_in"}
    exec(compile(block, "README.md", "exec"), found)
    return found["FillIn"]


def test_the_skeleton_trains_and_is_validated(method: Any) -> None:
    config = replace(run_config("mdlm", **method.trial), objective=method(share=0.5))
    loop = PlainLoop(config)
    for _ in range(20):
        loop.step()
    assert loop.losses[-1] < loop.losses[0]
    with torch.no_grad():
        held_out = mean_losses(
            loop.denoiser.ask, config.objective, config.model, SyntheticStream(config),
            seed=0, num=7, batch=2,
        )  # fmt: skip
    assert held_out.losses(config.objective)["loss"] == pytest.approx(loop.losses[-1], rel=0.2)
