"""Initial weights: by name and seed alone, with the intended spread."""

import math
from typing import Any

import pytest
import torch
from asking import logits_of
from small_dit import (
    all_blocks,
    allowed_rows,
    config,
    inputs,
)

from model.categorical import Categorical
from model.networks.build import build


@all_blocks
def test_the_first_loss_of_an_untied_head_is_log_v(settings: dict[str, Any]) -> None:
    model = build(config(**settings))
    ids, level = inputs(model.config)
    logits = logits_of(model, ids, level)
    allowed = allowed_rows(model.config)
    losses = -Categorical(logits).log_prob(torch.full((ids.numel(),), allowed[-1]))
    uniform = math.log(len(allowed))
    if model.config.tied_head:
        assert (losses - uniform).abs().min() > 0
    else:
        torch.testing.assert_close(losses, torch.full_like(losses, uniform), rtol=0, atol=1e-6)


def test_initial_weights_depend_on_name_and_seed_alone() -> None:
    torch.manual_seed(1)
    model = dict(build(config(), seed=4).named_parameters())
    torch.manual_seed(2)
    deeper = dict(build(config(num_layers=3), seed=4).named_parameters())
    other = dict(build(config(), seed=5).named_parameters())
    common = [name for name in model if not name.startswith("layers.3.")]
    assert len(common) > 20
    for name in common:
        assert torch.equal(model[name], deeper[name])
    drawn = [name for name in model if model[name].unique().numel() > 2]
    assert "layers.0.tokens.weight" in drawn
    assert "layers.2.attention.out.weight" in drawn
    for name in drawn:
        assert not torch.isin(model[name], other[name]).any()
    firsts = [float((model[name].flatten()[0] / model[name].std()).detach()) for name in drawn]
    assert len(set(firsts)) == len(firsts)


def test_initial_weights_have_the_intended_spread() -> None:
    model = build(config(width=64, conditioning_width=64)).requires_grad_(False)
    block = model.layers["1"]
    for settings, std in (({}, 1.0), ({"tied_head": True}, 1 / 8), ({"embedding_std": 0.02}, 0.02)):
        embedding = build(config(width=64, **settings)).embedding.tokens.weight
        assert embedding.detach().std() == pytest.approx(std, rel=0.05)
    assert block.attention.q.weight.std() == pytest.approx(64**-0.5, rel=0.05)
    assert block.mlp.down.weight.std() == pytest.approx(256**-0.5, rel=0.05)
    for norm in (block.attention_norm, block.mlp_norm, model.output.norm):
        assert (norm.weight == 1).all()
    for zero in (block.mlp.up.bias, block.modulation.weight, model.output.head.weight):
        assert (zero == 0).all()
