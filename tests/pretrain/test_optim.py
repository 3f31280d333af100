import itertools

import pytest
import torch

from model.architectures.dit import DiT
from model.networks.build import build
from pretrain.optim import adamw, learning_rate, parameter_groups
from pretrain.optim_config import OptimConfig, ScheduleConfig


def rates(schedule: ScheduleConfig, steps: int = 100) -> list[float]:
    config = OptimConfig(lr=2.0, schedule=schedule)
    return [learning_rate(config, step, steps) for step in range(1, steps + 1)]


def test_warm_up_is_linear_and_then_constant() -> None:
    got = rates(ScheduleConfig(name="constant", warmup=10))
    assert got[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert set(got[9:]) == {2.0}


def test_cosine_passes_its_middle_and_ends_at_final() -> None:
    got = rates(ScheduleConfig(name="cosine", warmup=0, final=0.1))
    assert got[49] == pytest.approx(2.0 * 0.55)
    assert got[-1] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(got))


def test_wsd_holds_then_falls_linearly_over_its_share() -> None:
    got = rates(ScheduleConfig(name="wsd", decay_share=0.2))
    assert set(got[:80]) == {2.0}
    assert got[89] == pytest.approx(1.0)
    assert got[-1] == 0.0


def test_only_matrices_decay() -> None:
    denoiser = build(DiT(vocab_size=10, width=8, num_layers=1, num_heads=2))
    decayed, kept = parameter_groups(denoiser.parameter_names(), 0.1)
    assert decayed["weight_decay"] == 0.1
    assert kept["weight_decay"] == 0.0
    names = {id(p): name for name, p in denoiser.named_parameters()}
    kept_names = {names[id(p)] for p in kept["params"]}
    assert "layers.0.tokens.weight" in kept_names
    assert "layers.1.attention.q.weight" not in kept_names
    assert all("norm" in n or "bias" in n or "tokens" in n for n in kept_names)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_adamw_takes_its_settings_from_the_configuration() -> None:
    config = OptimConfig(lr=0.5, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.2)
    group = adamw({torch.nn.Parameter(torch.zeros(2, 2)): "w"}, config).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-6)
    assert group["weight_decay"] == 0.2
