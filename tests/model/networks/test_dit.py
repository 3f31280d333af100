"""The denoiser: what it reads and predicts, and that all of its parameters learn."""

from typing import Any

import pytest
import torch
from asking import logits_of
from small_dit import (
    LENGTH,
    PLAIN,
    VOCAB,
    all_blocks,
    allowed_rows,
    config,
    excluded_rows,
    inputs,
    perturbed,
)
from torch import nn

from model.categorical import Categorical
from model.networks.build import build


@all_blocks
def test_mask_and_padding_rows_have_no_probability_and_no_gradient(
    settings: dict[str, Any],
) -> None:
    model = perturbed(build(config(**settings)))
    ids, level = inputs(model.config)
    logits = logits_of(model, ids, level)
    assert logits.shape == (ids.numel(), model.config.num_rows)
    out, allowed = excluded_rows(model.config), allowed_rows(model.config)
    assert (logits[:, out] == -torch.inf).all()
    assert logits[:, allowed].isfinite().all()
    probability = logits.softmax(-1)
    torch.testing.assert_close(probability[:, allowed].sum(-1), torch.ones(ids.numel()))
    assert (probability[:, out] == 0).all()
    target = torch.tensor(allowed)[torch.arange(ids.numel()) % len(allowed)]
    head = model.output.head
    weight_grad, *bias_grad = torch.autograd.grad(
        Categorical(logits).log_prob(target).sum(),
        [parameter for parameter in (head.weight, head.bias) if parameter is not None],
    )
    assert all(grad.isfinite().all() for grad in (weight_grad, *bias_grad))
    assert (weight_grad[allowed] != 0).any(1).all()
    for grad in bias_grad:
        assert (grad[allowed] != 0).all()
        assert (grad[out] == 0).all()
    if not model.config.tied_head:
        assert (weight_grad[out] == 0).all()


@pytest.mark.parametrize("per_token", [False, True])
def test_the_head_at_chosen_positions_is_the_head_everywhere_gathered(per_token: bool) -> None:
    model = perturbed(build(config(time_conditioning=True)))
    ids, level = inputs(model.config)
    if per_token:
        level = torch.linspace(0, 1, ids.numel()).view_as(ids)
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[0, 2] = where[0, 5] = where[2, 0] = where[2, 6] = True
    everywhere = logits_of(model, ids, level).view(*ids.shape, -1)
    chosen = logits_of(model, ids, level, where)
    expected = torch.stack([everywhere[0, 2], everywhere[0, 5], everywhere[2, 0], everywhere[2, 6]])
    torch.testing.assert_close(chosen, expected, rtol=1e-5, atol=1e-5)
    nowhere = logits_of(model, ids, level, torch.zeros_like(where))
    assert nowhere.shape == (0, model.config.num_rows)
    nowhere.sum().backward()


@pytest.mark.parametrize("hide", [False, True])
def test_hidden_padding_changes_nothing_at_valid_positions(hide: bool) -> None:
    model = perturbed(build(config(hide_padding=hide)))
    ids, level = inputs(model.config)
    valid = torch.arange(LENGTH) < torch.tensor([[4], [7], [2]])
    other = torch.where(valid, ids, (ids + 1) % VOCAB)
    before, after = (logits_of(model, x, level, valid, valid)[:, :VOCAB] for x in (ids, other))
    changed = (before - after).abs().max(1).values > 1e-4
    padded_row = valid.nonzero()[:, 0] != 1
    assert torch.equal(changed, padded_row if not hide else torch.zeros_like(padded_row))


def test_hidden_padding_equals_a_shorter_sequence() -> None:
    model = perturbed(build(config(hide_padding=True)))
    ids, level = inputs(model.config)
    valid = (torch.arange(LENGTH) < 4).expand(3, -1)
    padded = logits_of(model, ids, level, valid, valid)
    torch.testing.assert_close(padded, logits_of(model, ids[:, :4], level), rtol=1e-5, atol=1e-5)


@all_blocks
def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = perturbed(build(config(**settings)))
    ids, level = inputs(model.config)
    valid = torch.arange(LENGTH) < torch.tensor([[4], [7], [2]])
    logits = logits_of(model, ids, level, None, valid)
    target = torch.full((ids.numel(),), allowed_rows(model.config)[0])
    (-Categorical(logits).log_prob(target)).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        rows = parameter.grad.flatten(1).abs().sum(1) if parameter.dim() > 1 else parameter.grad
        if name == "layers.0.tokens.weight":
            used = torch.isin(torch.arange(model.config.num_rows), ids)
            assert (rows[used] != 0).all()
            assert model.config.tied_head or (rows[~used] == 0).all()
        elif ".head." in name:
            assert (rows[allowed_rows(model.config)] != 0).all()
        else:
            assert (rows != 0).all(), name


def test_a_tied_head_is_the_embedding() -> None:
    model = build(config(tied_head=True))
    names = dict(model.named_parameters())
    assert model.output.head.weight is model.embedding.tokens.weight
    assert not [name for name in names if ".head." in name]
    assert {"layers.3.head.weight", "layers.3.head.bias"} <= dict(
        build(config()).named_parameters()
    ).keys()


@all_blocks
def test_every_output_sees_every_input(settings: dict[str, Any]) -> None:
    model = perturbed(build(config(**settings)))
    ids, level = inputs(model.config, rows=1)
    base = logits_of(model, ids, level)[:, :VOCAB]
    for changed in (0, LENGTH - 1):
        other = ids.clone()
        other[0, changed] = (ids[0, changed] + 1) % VOCAB
        change = (logits_of(model, other, level)[:, :VOCAB] - base).nan_to_num().abs().max(1).values
        assert (change > 1e-4).all()


def test_order_matters_and_samples_do_not_mix() -> None:
    model = perturbed(build(config()))
    ids, level = inputs(model.config)
    out = logits_of(model, ids, level).view(*ids.shape, -1)
    swapped = ids[:, [0, 2, 1, *range(3, LENGTH)]]
    assert (ids != swapped).any(1).all()
    moved = logits_of(model, swapped, level).view(*ids.shape, -1)
    assert ((out - moved)[:, 0, :VOCAB].abs().max(-1).values > 1e-4).all()
    alone = logits_of(model, ids[1:2], level[1:2])
    torch.testing.assert_close(alone, out[1], rtol=1e-5, atol=1e-5)


@all_blocks
def test_bfloat16_agrees_with_float32(settings: dict[str, Any]) -> None:
    model = perturbed(build(config(**settings)), scale=0.1)
    ids, level = inputs(model.config)
    allowed = allowed_rows(model.config)
    full = logits_of(model, ids, level)[:, allowed].log_softmax(-1)
    half = logits_of(model.bfloat16(), ids, level)
    assert half.dtype == torch.bfloat16
    assert (half[:, excluded_rows(model.config)] == -torch.inf).all()
    error = half[:, allowed].float().log_softmax(-1) - full
    # A rounding is 2^-9 of a value, and some tens of them lie between the ids and the logits.
    assert error.square().mean().sqrt() < 10 * 2**-9 * full.std()


def test_dropout_acts_in_training_only() -> None:
    model = perturbed(build(config(dropout=0.5)))
    ids, level = inputs(model.config)
    assert not torch.equal(logits_of(model, ids, level), logits_of(model, ids, level))
    model.eval()
    assert torch.equal(logits_of(model, ids, level), logits_of(model, ids, level))
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("settings", [{"time_conditioning": True}, {"name": "transformer"}])
def test_a_shifted_output_is_read_off_the_position_before(settings: dict[str, Any]) -> None:
    plain = perturbed(build(config(**settings)))
    shifted = build(config(**settings, shifted_output=True))
    shifted.load_state_dict(plain.state_dict())
    ids, level = inputs(plain.config)
    for levels in (level, torch.linspace(0, 1, ids.numel()).view_as(ids)):
        before = logits_of(plain, ids, levels).view(*ids.shape, -1)
        expected = torch.cat([before[:, :1], before[:, :-1]], dim=1)
        assert torch.equal(logits_of(shifted, ids, levels).view(*ids.shape, -1), expected)
        where = torch.zeros_like(ids, dtype=torch.bool)
        where[0, 3] = where[2, 0] = True
        torch.testing.assert_close(logits_of(shifted, ids, levels, where), expected[where])


def test_causal_attention_sees_no_later_position() -> None:
    model = perturbed(build(config(attention="causal")))
    ids, level = inputs(model.config, rows=1)
    other = ids.clone()
    other[0, 4] = (ids[0, 4] + 1) % VOCAB
    change = (
        (logits_of(model, ids, level) - logits_of(model, other, level))[:, :VOCAB]
        .abs()
        .max(1)
        .values
    )
    assert (change[:4] == 0).all()
    assert (change[4:] > 1e-4).all()


def test_learned_positions_end_somewhere() -> None:
    model = build(config(**PLAIN[1]))
    ids = torch.zeros(1, LENGTH + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="8 positions, but the model has learned only 7"):
        logits_of(model, ids, torch.zeros(1, 1))
