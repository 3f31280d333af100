"""Attention opens from causal to full, by step alone, and only while training."""

from dataclasses import replace

import pytest
import torch

from model.annealing import open_attention, seen
from model.config import ModelConfig
from model.denoiser import Denoiser
from model.draws import Draws

DRAWS = Draws(seed=0, split="train", batch=4)
MODEL = ModelConfig(
    vocab_size=11, width=16, num_layers=2, num_heads=2, causal_annealing_steps=10, block="pre_norm"
)


@pytest.mark.parametrize("step", [1, 5, 9])
def test_later_keys_are_seen_with_the_share_of_the_steps(step: int) -> None:
    found = seen(DRAWS, step, 10, 300)
    assert found is not None
    lower = torch.ones(300, 300, dtype=torch.bool).tril()
    assert found[lower].all()
    share = found[~lower].double().mean().item()
    deviation = (step / 10 * (1 - step / 10) / (~lower).sum().item()) ** 0.5
    assert abs(share - step / 10) < 5 * deviation


def test_the_mask_depends_on_the_step_and_the_seed_alone() -> None:
    one, same = seen(DRAWS, 3, 10, 40), seen(replace(DRAWS, batch=8), 3, 10, 40)
    other, seeded = seen(DRAWS, 4, 10, 40), seen(replace(DRAWS, seed=1), 3, 10, 40)
    assert one is not None
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, seeded)


def test_at_the_end_everything_is_seen() -> None:
    assert seen(DRAWS, 10, 10, 5) is None
    assert seen(DRAWS, 11, 10, 5) is None


def test_it_acts_while_training_only() -> None:
    model = Denoiser(MODEL)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    ids = torch.arange(8)[None] % 11
    level = torch.zeros(1, 1)
    full = model(ids, level)
    open_attention(model, replace(MODEL, causal_annealing_steps=10**9), DRAWS, 1, 8)
    causal = Denoiser(replace(MODEL, attention="causal"))
    causal.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(ids, level), causal(ids, level))
    assert not torch.allclose(model(ids, level)[:, :10], full[:, :10], atol=1e-3)
    torch.testing.assert_close(model.eval()(ids, level), full)
    open_attention(model.train(), MODEL, DRAWS, 10, 8)
    assert torch.equal(model(ids, level), full)


def test_no_model_of_ours_changes_without_it() -> None:
    model = Denoiser(replace(MODEL, causal_annealing_steps=0))
    open_attention(model, model.config, DRAWS, 1, 8)
    assert all(getattr(m, "seen_LL", None) is None for m in model.modules())
