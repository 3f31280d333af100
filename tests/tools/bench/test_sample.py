"""The yardstick of ``tools.bench sample`` samples what it should, and the command reports both."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.verification.joint import Joint
from tools.bench import reference, reference_sampling, sample
from tools.bench.__main__ import main

SHAPE = {"vocab_size": 50, "width": 16, "layers": 1, "heads": 2, "batch": 2, "length": 8}
TINY = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]


def network_of(joint: Joint) -> Any:
    """What the sampling loop asks of a network beside its logits."""
    table = SimpleNamespace(weight=torch.zeros(1))
    config = SimpleNamespace(mask=joint.mask, time_conditioning=False)
    return SimpleNamespace(config=config, embedding=table)


def test_the_reference_samples_the_joint_of_true_conditionals(
    monkeypatch: pytest.MonkeyPatch, chi_square: Callable[[Tensor, Tensor], float]
) -> None:
    joint = Joint.random(3, 2)

    def logits(network: Any, ids_BL: Tensor, time_B: Tensor) -> Tensor:
        # At visible places, too, whose prediction is overwritten.
        everywhere = torch.ones_like(ids_BL, dtype=torch.bool)
        found = joint.denoise(ids_BL, torch.zeros(1), everywhere)
        return found.view(*ids_BL.shape, -1).clamp(min=-1e6).float()

    monkeypatch.setattr(reference, "logits", logits)
    torch.manual_seed(0)
    num, steps = 4000, 300
    ids_BL, evaluations = reference_sampling.cached_sample(
        network_of(joint), batch=num, length=2, steps=steps
    )
    counts = torch.bincount(3 * ids_BL[:, 0] + ids_BL[:, 1], minlength=9)
    assert chi_square(counts, joint.p.flatten()) < 4
    assert evaluations == steps + 1


def test_a_prediction_is_used_again_until_a_token_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    joint = Joint.random(3, 2)
    asked = []

    def logits(network: Any, ids_BL: Tensor, time_B: Tensor) -> Tensor:
        asked.append(ids_BL.tolist())
        return torch.zeros(*ids_BL.shape, 4)

    monkeypatch.setattr(reference, "logits", logits)
    torch.manual_seed(1)
    _, evaluations = reference_sampling.cached_sample(
        network_of(joint), batch=1, length=2, steps=200
    )
    # All masked, one token, both; the last pass sees what the one before saw.
    assert evaluations == len(asked) == 4
    assert asked[0] == [[3, 3]]
    assert sum(place == 3 for place in asked[1][0]) == 1
    assert 3 not in asked[2][0]
    assert asked[3] == asked[2]


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    words = ["sample", "--case", "default", *TINY, "--steps", "4", "--repeats", "1"]
    assert main([*words, "--json", str(path)]) == 0
    assert "ref. tok/s" in capsys.readouterr().out
    (row,) = json.loads(path.read_text())["comparisons"]
    assert row["target"] is row["met"] is None
    assert row["ours_evaluations"] <= 4
    assert row["reference_evaluations"] <= 5
    assert row["ratio"] > 0


def test_a_missed_target_fails_only_under_check(monkeypatch: pytest.MonkeyPatch) -> None:
    case = sample.Case(name="default", vocab_size=50, width=16, layers=1, heads=2, batch=2,
                       length=8, targets={2: 1e9})  # fmt: skip
    monkeypatch.setattr(sample, "CASES", (case,))
    words = ["sample", "--case", "default", "--repeats", "1"]
    assert main(words) == 0
    assert main([*words, "--check"]) == 1
