"""The method that model/README.md writes down works as it stands.

Quickly, in this process: its file is put where the registry looks. Slowly, as a reader has it: the
files are copied into a copy of the project, whose commands train it, resume it on another layout,
evaluate, sample and verify it, and refuse to export it with a line that says what to do.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import blocks, copy_project

import model.objectives
import model.samplers
from configs.load import Plugin
from model.draws import Draws
from model.samplers import Job
from model.verification import oracles
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.losses import mean_losses
from pretrain.trial import SyntheticStream, run_config
from tools.verify.reference_loop import PlainLoop

NAME = "fill_in"
REGISTRIES = {"objectives": model.objectives, "samplers": model.samplers}


def written() -> dict[str, str]:
    """The files of the page, by the names under which it says to save them."""
    found = {}
    for block in blocks("model/README.md", "python"):
        kind = "samplers" if "(Sampler)" in block.text else "objectives"
        found[f"model/{kind}/{NAME}.py"] = block.text
    return found


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The objective, found by name as an installed one is, and its sampler."""
    assert len(written()) == len(REGISTRIES)
    top = tmp_path_factory.mktemp("method")
    with pytest.MonkeyPatch.context() as patch:
        for file, text in written().items():
            path = top / file
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            folder = REGISTRIES[path.parent.name]
            patch.setattr(folder, "__path__", [*folder.__path__, str(path.parent)])
        yield Plugin("model.objectives").resolve(NAME)
    for kind in REGISTRIES:
        sys.modules.pop(f"model.{kind}.{NAME}", None)


def test_it_trains_and_is_validated(method: Any) -> None:
    config = replace(run_config("mdlm", **method.trial), objective=method(share=0.5))
    loop = PlainLoop(config)
    for _ in range(20):
        loop.step()
    assert loop.losses[-1] < loop.losses[0]
    ask = loop.denoiser.ask
    evaluator = Evaluator(ask=ask, objective=config.objective, model=config.model, seed=0, batch=2)
    with torch.no_grad():
        held_out = mean_losses(evaluator, SyntheticStream(config), num=7)
    assert held_out.losses(config.objective)["loss"] == pytest.approx(loop.losses[-1], rel=0.2)


def test_it_is_sampled_and_leaves_what_is_given(method: Any) -> None:
    config = run_config(NAME)
    sampler = Plugin("model.samplers").build(config.objective.sampler)
    sampler.suits(config.objective, config.model)
    ids_BL = torch.arange(2 * 16).view(2, 16)
    free_BL = torch.arange(16).expand(2, -1) % 3 == 0
    job = Job(
        ids_BL=ids_BL, free_BL=free_BL, position_B=torch.arange(2),
        draws=Draws(seed=0, split="sample", batch=2), objective=config.objective,
        model=config.model, network=PlainLoop(config).denoiser,
    )  # fmt: skip
    with torch.no_grad():
        drawn_BL = sampler.run(job)
    assert torch.equal(drawn_BL[~free_BL], ids_BL[~free_BL])
    assert drawn_BL[free_BL].max() < config.model.vocab_size
    assert job.evaluations == sampler.num_steps(16) == 1


def test_verify_names_the_oracle_that_is_missing(method: Any) -> None:
    (check,) = [check for check in oracles.checks(torch.device("cpu")) if check.name == NAME]
    with pytest.raises(oracles.NoOracleError, match=f"write model/verification/oracles/{NAME}.py"):
        check.compare()


class Reader:
    """Who copies the files into a copy of the project and starts its commands."""

    def __init__(self, copy: Path, demo_dir: Path) -> None:
        self.copy = copy
        copy_project(copy, demo_dir, "configs", *PACKAGES)
        text = f"objective: {{name: {NAME}, share: 0.3}}\nrun_dir: runs/mine\n"
        (copy / "mine.yaml").write_text(text, encoding="utf-8")

    def saves(self, file: str) -> None:
        (self.copy / file).write_text(written()[file], encoding="utf-8")

    def starts(self, *words: str) -> tuple[int, str]:
        """Status and output of a command."""
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=self.copy, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(self.copy),
        )  # fmt: skip
        return done.returncode, done.stdout


PACKAGES = ("model", "data_pipeline", "pretrain", "tools", "slurm")


def environment(copy: Path) -> dict[str, str]:
    """Where nothing but the copy is found under our packages' names."""
    return {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_reader_finds_it_everywhere(tmp_path: Path, demo_dir: Path) -> None:
    reader = Reader(tmp_path / "copy", demo_dir)
    train = ("pretrain", "configs/tiny.yaml", "mine.yaml")
    status, printed = reader.starts(*train)
    assert status == 2
    assert f"unknown objective '{NAME}'" in printed

    reader.saves(f"model/objectives/{NAME}.py")
    status, printed = reader.starts(*train, "stop_after=10")
    assert status == 0, printed
    status, printed = reader.starts(*train, "parallel.tensor=2")
    assert status == 0, printed
    assert "step 20: held-out loss" in printed
    status, printed = reader.starts("tools.evaluate", "runs/mine", "--samples", "1")
    assert status == 0, printed
    assert '"loss"' in printed

    status, printed = reader.starts("tools.sample", "runs/mine", "--num", "1")
    assert status == 2
    assert f"unknown sampler '{NAME}'" in printed
    reader.saves(f"model/samplers/{NAME}.py")
    status, printed = reader.starts(
        "tools.sample", "runs/mine", "--num", "1", "--prompt", "if ___{12}: return ___",
        "--length", "32", "--sampler", "temperature=0",
    )  # fmt: skip
    assert status == 0, printed
    assert "if " in printed
    assert ": return" in printed

    status, printed = reader.starts("tools.convert", "to-hf", "runs/mine", "exports/mine")
    assert status == 2, printed
    assert f"objective {NAME} has no form in transformers" in printed
    assert "sample it with tools.sample" in printed
    status, printed = reader.starts("tools.verify", "--only", "oracles")
    assert status == 1, printed
    assert f"write model/verification/oracles/{NAME}.py" in printed
