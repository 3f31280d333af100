"""Levels of noise, of a sample or of each token, and how a denoiser reads them."""

import math

import pytest
import torch
from asking import logits_of
from small_dit import (
    LENGTH,
    VOCAB,
    config,
    inputs,
    perturbed,
)
from torch import nn

from model.networks.adaln import sinusoid
from model.networks.build import build


def test_the_level_is_seen_only_with_time_conditioning() -> None:
    for on in (False, True):
        model = perturbed(build(config(time_conditioning=on)))
        ids, level = inputs(model.config)
        low, high = (
            logits_of(model, ids, 0 * level)[:, :VOCAB],
            logits_of(model, ids, level)[:, :VOCAB],
        )
        if on:
            assert ((low - high).abs().max(1).values > 1e-3).all()
        else:
            assert torch.equal(low, high)


@pytest.mark.parametrize("on", [False, True])
def test_one_level_a_sample_equals_the_same_level_at_every_token(on: bool) -> None:
    model = perturbed(build(config(time_conditioning=on)))
    ids, level = inputs(model.config)
    per_token = logits_of(model, ids, level.expand(-1, LENGTH))
    torch.testing.assert_close(logits_of(model, ids, level), per_token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2], ids=["block", "head"])
def test_a_level_of_its_own_reaches_a_token(layer: int) -> None:
    model = build(config(time_conditioning=True, num_layers=1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (model.layers[str(layer)].modulation.weight, model.output.head.weight):
            weight.normal_(generator=generator)
    ids, level = inputs(model.config, rows=1)
    levels = level.expand(-1, LENGTH).clone()
    levels[0, 4] = 0.9
    change = (
        (logits_of(model, ids, levels) - logits_of(model, ids, level))[:, :VOCAB]
        .abs()
        .max(1)
        .values
    )
    assert change[4] > 0.01
    assert change.argmax() == 4
    if layer == 2:
        assert (change > 1e-5).sum() == 1


def test_without_time_conditioning_levels_per_token_cost_nothing() -> None:
    for on in (False, True):
        model = build(config(time_conditioning=on))
        ids, level = inputs(model.config)
        _, c_BKC = model.embedding((level.expand(-1, LENGTH), ids))
        assert c_BKC.shape == (3, LENGTH if on else 1, 8)


def test_the_total_noise_is_mdlms() -> None:
    model = perturbed(build(config(time_conditioning=True, time_input="noise")))
    ids, _ = inputs(model.config)
    level = torch.tensor([[0.0], [0.5], [1.0]])
    _, c_BKC = model.embedding((level, ids))
    sigma = torch.tensor([[0.0], [-math.log(1 - 0.999 * 0.5)], [-math.log(0.001)]])
    first = nn.functional.silu(model.embedding.time_in(sinusoid(sigma)))
    expected = nn.functional.silu(model.embedding.time_out(first))
    torch.testing.assert_close(c_BKC, expected, rtol=1e-4, atol=1e-4)
