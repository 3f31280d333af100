"""Block diffusion: what is read, what is predicted, and what it is blind to."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.attention_layouts import FULL, Blocks
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.networks.initialize import initial_value
from model.objectives import Noisy, sum_losses
from model.objectives.bd3lm import Bd3lm
from model.objectives.mdlm import Mdlm
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from model.verification.oracles.bd3lm import denoised
from model.verification.texts import row_losses

VOCAB = 11
MODEL = DiT(
    vocab_size=VOCAB, width=16, num_layers=2, num_heads=2, conditioning_width=8,
    time_conditioning=True,
)  # fmt: skip


def draws(batch: int, seed: int = 0) -> Draws:
    return Draws(seed=seed, split="test", batch=batch)


def batch_of(rows: int, length: int, first: int = 0) -> dict[str, Tensor]:
    position = first + torch.arange(rows)
    tokens = (VOCAB * draws(1).uniform("text", position, length)).long()
    return {"tokens": tokens, "valid": torch.ones_like(tokens).bool(), "position": position}


def moved(config: ModelConfig) -> Network:
    """None of its weights is zero: where branches are closed nothing can be told apart."""
    found = build(config).eval()
    with torch.no_grad():
        for parameter, called in found.parameter_names().items():
            parameter.add_(initial_value(f"noise.{called}.q.weight", parameter.shape, 1, 0.3))
    return found


@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_the_noisy_text_is_read_with_its_clean_copy_behind_it(padding: Any) -> None:
    batch = batch_of(60, 10)
    batch["valid"] = torch.arange(10) < 1 + torch.arange(60)[:, None] % 10
    batch["segment"] = 1 + (torch.arange(10) > 6).long().expand(60, 10)
    noisy = Bd3lm(block_size=4, padding=padding).corrupt(batch, draws(60), MODEL)
    tokens, half = batch["tokens"], noisy.ids_BL[:, :10]
    assert noisy.layout == Blocks(size=4)
    assert torch.equal(noisy.ids_BL[:, 10:], tokens)
    assert torch.equal(noisy.target_BL, tokens.repeat(1, 2))
    assert noisy.segment_BL is not None
    assert torch.equal(noisy.segment_BL, batch["segment"].repeat(1, 2))
    text = torch.ones_like(batch["valid"]) if padding == "generated" else batch["valid"]
    assert noisy.valid_BL is not None
    assert torch.equal(noisy.valid_BL, text.repeat(1, 2))
    assert not noisy.predict_mask_BL[:, 10:].any()
    assert not noisy.over_BL[:, 10:].any()
    assert not noisy.level_BK[:, 10:].any()
    masked = half == MODEL.mask
    assert torch.equal(half[~masked], tokens[~masked])
    assert torch.equal(noisy.predict_mask_BL[:, :10], masked & text)
    assert masked[~batch["valid"]].any() == (padding != "visible")
    # The first token is given: it is text that was read, and not in the loss.
    assert not masked[:, 0].any()
    assert torch.equal(noisy.over_BL[:, :10], text & (torch.arange(10) > 0))
    assert noisy.tokens == text.sum()
    assert noisy.count() == text.sum() - 60


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.0), (0.3, 0.8)])
def test_each_block_has_a_time_of_its_own(schedule: Any, low: float, high: float) -> None:
    rows, length, size = 64, 30, 4
    objective = Bd3lm(block_size=size, schedule=schedule, t_min=low, t_max=high)
    noisy = objective.corrupt(batch_of(rows, length), draws(rows), MODEL)
    level = noisy.level_BK[:, :length].double()
    blocks = level[:, ::size]
    assert torch.equal(blocks.repeat_interleave(size, dim=1)[:, :length], level)
    share = (blocks - low) / (high - low)
    bins = (share * rows * 8).round(decimals=3).long()
    assert len(bins.flatten().unique()) > 0.99 * rows * 8
    assert ((share * 8).long().sort(dim=1).values == torch.arange(8)).double().mean() > 0.99
    # As many are masked as the rate says, and they weigh as the bound has it.
    rate = 1 - schedule.alpha(level[:, 1:])
    difference = (noisy.predict_mask_BL[:, 1:length].double() - rate).sum()
    assert abs(difference) < 4 * (rate * (1 - rate)).sum().sqrt()
    weight = -schedule.dalpha(level) / (1 - schedule.alpha(level))
    torch.testing.assert_close(noisy.weight_BK[:, :length].double(), weight, rtol=1e-3, atol=0)


@pytest.mark.parametrize("method", ["corrupt", "bound_corrupt"])
def test_noise_depends_on_the_stream_position_alone(method: str) -> None:
    kept = torch.tensor([11, 2, 5, 15])

    def made(batch: dict[str, Tensor], seed: int = 0) -> Noisy:
        batch = batch | {"free": batch["valid"]}
        found: Noisy = getattr(Bd3lm(block_size=3), method)(batch, draws(16, seed), MODEL)
        return found

    batch = batch_of(16, 8, first=100)
    whole, part = made(batch), made({key: value[kept] for key, value in batch.items()})
    for name in ("ids_BL", "level_BK", "predict_mask_BL", "weight_BK", "over_BL"):
        assert torch.equal(getattr(whole, name)[kept], getattr(part, name))
    assert not torch.equal(whole.predict_mask_BL, made(batch, seed=1).predict_mask_BL)


def test_one_block_is_mdlm_in_its_losses_and_gradients() -> None:
    batch = batch_of(8, 9)
    found = []
    for objective in (Bd3lm(block_size=9), Mdlm()):
        network = moved(MODEL)
        noisy = objective.corrupt(batch, draws(8), MODEL)
        assert noisy.layout == FULL
        sums = sum_losses(objective, network.prediction(network(noisy)), noisy)
        sums.terms["loss"].backward()
        grads = [parameter.grad for parameter in network.parameters()]
        found.append((sums.terms["loss"], sums.level_loss, noisy.count(), *grads))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_no_block_sees_its_own_clean_copy_or_later_ones() -> None:
    """A clean token that is changed changes what later blocks are told, and nothing before."""
    network, size, length = moved(MODEL), 3, 8
    batch = batch_of(4, length)
    noisy = Bd3lm(block_size=size).bound_corrupt(batch | {"free": batch["valid"]}, draws(4), MODEL)
    everywhere = torch.arange(2 * length).expand(4, -1) < length

    def logits(ids: Tensor) -> Tensor:
        with torch.no_grad():
            found = network(replace(noisy, ids_BL=ids, predict_mask_BL=everywhere))["logits"]
        return found.unflatten(0, (4, length))[..., :VOCAB]

    before = logits(noisy.ids_BL)
    for place in range(length):
        ids = noisy.ids_BL.clone()
        ids[:, length + place] = (ids[:, length + place] + 1) % VOCAB
        apart = (logits(ids) - before).abs().amax(dim=(0, 2))
        later = torch.arange(length) // size > place // size
        assert (apart[~later] == 0).all()
        assert (apart[later] > 1e-4).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_sampled_bound_converges_to_the_likelihood(three_tokens: Any, size: int) -> None:
    """By the draws of a run; for blocks of one token each draw is -log p."""
    rows = 3000
    for number in range(0, 27, 7):
        tokens = three_tokens.outcomes[number].expand(rows, 3)
        batch = {
            "tokens": tokens,
            "valid": torch.ones_like(tokens, dtype=torch.bool),
            "position": torch.arange(rows),
        }
        objective, model = Bd3lm(block_size=size), three_tokens.config
        noisy = objective.bound_corrupt(batch | {"free": batch["valid"]}, draws(rows), model)
        losses = row_losses(Bd3lm().bound_losses, noisy, denoised(three_tokens, noisy))
        error = float(losses.std()) / rows**0.5
        assert error < (1e-6 if size == 1 else 0.04)
        assert abs(losses.mean() + three_tokens.log_prob[number]) < 4 * error + 1e-6


def test_blocks_of_one_are_the_losses_of_a_model_that_goes_left_to_right() -> None:
    """Every token is masked alone behind its clean prefix, whatever is drawn; its weight is 1."""
    batch = batch_of(5, 6)
    free = torch.arange(6) > 0
    first, second = (
        Bd3lm(block_size=1).bound_corrupt(
            batch | {"free": free.expand(5, 6)}, draws(5, seed), MODEL
        )
        for seed in (0, 1)
    )
    assert torch.equal(first.ids_BL, second.ids_BL)
    assert (first.ids_BL[:, 1:6] == MODEL.mask).all()
    assert (first.weight_BK[:, 1:6] == 1).all()
    assert torch.equal(first.predict_mask_BL[:, :6], free.expand(5, 6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"t_min": 0.5, "t_max": 0.5}, "t_min and t_max must lie in"),
        ({"t_max": 1.1}, "t_min and t_max must lie in"),
        ({"t_min": math.nan}, "t_min and t_max must lie in"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bd3lm(**settings)


def test_the_gradient_of_a_level_is_of_its_own_positions() -> None:
    """Levels are conditioned on position by position: that of one block moves no other."""
    network, length = moved(MODEL), 8
    batch = batch_of(2, length)
    noisy = Bd3lm(block_size=4).bound_corrupt(batch | {"free": batch["valid"]}, draws(2), MODEL)
    everywhere = torch.arange(2 * length).expand(2, -1) < length
    level = noisy.level_BK.clone().requires_grad_()
    asked = replace(noisy, level_BK=level, predict_mask_BL=everywhere)
    logits = network(asked)["logits"].unflatten(0, (2, length))[..., :VOCAB]
    (grad,) = torch.autograd.grad(
        (logits * torch.arange(VOCAB))[:, :4].sum(), level, retain_graph=True
    )
    assert (grad[:, :4] != 0).all()
    assert (grad[:, 4:] == 0).all()
    (grad,) = torch.autograd.grad((logits * torch.arange(VOCAB))[:, 4:].sum(), level)
    assert (grad[:, :4] == 0).all()
    assert (grad[:, 4 : length + 4] != 0).all()
