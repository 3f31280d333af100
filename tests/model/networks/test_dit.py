import math
from typing import Any

import pytest
import torch
from asking import logits_of
from torch import Tensor, nn

from model.categorical import Categorical
from model.networks.config import ModelConfig
from model.networks.dit import Denoiser
from model.networks.layers import Block, Norm, rotate, sinusoid

VOCAB, LENGTH = 11, 7

VARIANTS: list[dict[str, Any]] = [
    {},
    {"mlp": "swiglu"},
    {"norm": "rmsnorm"},
    {"tied_head": True},
    {"mask_id": 3},
    {"time_conditioning": True},
    {"mlp": "swiglu", "norm": "rmsnorm", "tied_head": True, "hide_padding": True, "mask_id": 0},
    {"num_heads": 4, "num_kv_heads": 2, "qk_norm": True, "head_size": 6, "qkv_bias": True},
]
PLAIN: list[dict[str, Any]] = [
    {"block": "pre_norm", "mlp": "swiglu", "norm": "rmsnorm", "num_kv_heads": 1},
    {
        "block": "post_norm",
        "norm_bias": True,
        "num_positions": LENGTH,
        "attention_bias": True,
        "gelu": "erf",
    },
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in settings.items()) or "plain"


variants = pytest.mark.parametrize("settings", VARIANTS, ids=named)
all_blocks = pytest.mark.parametrize("settings", VARIANTS + PLAIN, ids=named)


def config(**settings: Any) -> ModelConfig:
    defaults = {"vocab_size": VOCAB, "width": 16, "num_layers": 2, "num_heads": 2}
    return ModelConfig(**{**defaults, "conditioning_width": 8, **settings})


def perturbed(model: Denoiser, scale: float = 0.2) -> Denoiser:
    """The model with every weight moved, so that no branch is closed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(model: ModelConfig, rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(VOCAB, (rows, LENGTH), generator=generator)
    ids[:, ::3] = model.mask
    return ids, torch.linspace(0.2, 0.9, rows)[:, None]


def excluded_rows(model: ModelConfig) -> list[int]:
    return sorted({model.mask, *range(VOCAB, model.num_rows)})


def allowed_rows(model: ModelConfig) -> list[int]:
    return [row for row in range(VOCAB) if row != model.mask]


@all_blocks
def test_mask_and_padding_rows_have_no_probability_and_no_gradient(
    settings: dict[str, Any],
) -> None:
    model = perturbed(Denoiser(config(**settings)))
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


@all_blocks
def test_the_first_loss_of_an_untied_head_is_log_v(settings: dict[str, Any]) -> None:
    model = Denoiser(config(**settings))
    ids, level = inputs(model.config)
    logits = logits_of(model, ids, level)
    allowed = allowed_rows(model.config)
    losses = -Categorical(logits).log_prob(torch.full((ids.numel(),), allowed[-1]))
    uniform = math.log(len(allowed))
    if model.config.tied_head:
        assert (losses - uniform).abs().min() > 0
    else:
        torch.testing.assert_close(losses, torch.full_like(losses, uniform), rtol=0, atol=1e-6)


@pytest.mark.parametrize("per_token", [False, True])
def test_the_head_at_chosen_positions_is_the_head_everywhere_gathered(per_token: bool) -> None:
    model = perturbed(Denoiser(config(time_conditioning=True)))
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


def test_initial_weights_depend_on_name_and_seed_alone() -> None:
    torch.manual_seed(1)
    model = dict(Denoiser(config(), seed=4).named_parameters())
    torch.manual_seed(2)
    deeper = dict(Denoiser(config(num_layers=3), seed=4).named_parameters())
    other = dict(Denoiser(config(), seed=5).named_parameters())
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
    model = Denoiser(config(width=64, conditioning_width=64)).requires_grad_(False)
    block = model.layers["1"]
    for settings, std in (({}, 1.0), ({"tied_head": True}, 1 / 8), ({"embedding_std": 0.02}, 0.02)):
        embedding = Denoiser(config(width=64, **settings)).embedding.tokens.weight
        assert embedding.detach().std() == pytest.approx(std, rel=0.05)
    assert block.attention.q.weight.std() == pytest.approx(64**-0.5, rel=0.05)
    assert block.mlp.down.weight.std() == pytest.approx(256**-0.5, rel=0.05)
    for norm in (block.attention_norm, block.mlp_norm, model.output.norm):
        assert (norm.weight == 1).all()
    for zero in (block.mlp.up.bias, block.modulation.weight, model.output.head.weight):
        assert (zero == 0).all()


@variants
def test_every_block_starts_as_the_identity(settings: dict[str, Any]) -> None:
    model = Denoiser(config(**settings))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, LENGTH, 16, generator=generator)
    c = torch.randn(2, 1, 8, generator=generator)
    blocks = [layer for layer in model.layers.values() if isinstance(layer, Block)]
    assert len(blocks) == 2
    for block in blocks:
        assert torch.equal(block((x, c))[0], x)
    perturbed(model)
    assert not torch.isclose(blocks[0]((x, c))[0], x).any(-1).all()


def test_the_level_is_seen_only_with_time_conditioning() -> None:
    for on in (False, True):
        model = perturbed(Denoiser(config(time_conditioning=on)))
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
    model = perturbed(Denoiser(config(time_conditioning=on)))
    ids, level = inputs(model.config)
    per_token = logits_of(model, ids, level.expand(-1, LENGTH))
    torch.testing.assert_close(logits_of(model, ids, level), per_token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2], ids=["block", "head"])
def test_a_level_of_its_own_reaches_a_token(layer: int) -> None:
    model = Denoiser(config(time_conditioning=True, num_layers=1))
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
        model = Denoiser(config(time_conditioning=on))
        ids, level = inputs(model.config)
        _, c_BKC = model.embedding((level.expand(-1, LENGTH), ids))
        assert c_BKC.shape == (3, LENGTH if on else 1, 8)


@pytest.mark.parametrize("hide", [False, True])
def test_hidden_padding_changes_nothing_at_valid_positions(hide: bool) -> None:
    model = perturbed(Denoiser(config(hide_padding=hide)))
    ids, level = inputs(model.config)
    valid = torch.arange(LENGTH) < torch.tensor([[4], [7], [2]])
    other = torch.where(valid, ids, (ids + 1) % VOCAB)
    before, after = (logits_of(model, x, level, valid, valid)[:, :VOCAB] for x in (ids, other))
    changed = (before - after).abs().max(1).values > 1e-4
    padded_row = valid.nonzero()[:, 0] != 1
    assert torch.equal(changed, padded_row if not hide else torch.zeros_like(padded_row))


def test_hidden_padding_equals_a_shorter_sequence() -> None:
    model = perturbed(Denoiser(config(hide_padding=True)))
    ids, level = inputs(model.config)
    valid = (torch.arange(LENGTH) < 4).expand(3, -1)
    padded = logits_of(model, ids, level, valid, valid)
    torch.testing.assert_close(padded, logits_of(model, ids[:, :4], level), rtol=1e-5, atol=1e-5)


@all_blocks
def test_every_parameter_learns(settings: dict[str, Any]) -> None:
    model = perturbed(Denoiser(config(**settings)))
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
    model = Denoiser(config(tied_head=True))
    names = dict(model.named_parameters())
    assert model.output.head.weight is model.embedding.tokens.weight
    assert not [name for name in names if ".head." in name]
    assert {"layers.3.head.weight", "layers.3.head.bias"} <= dict(
        Denoiser(config()).named_parameters()
    ).keys()


def test_norms_divide_by_their_own_statistic() -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    layer, rms = Norm(config()).double(), Norm(config(norm="rmsnorm")).double()
    gain = torch.linspace(0.5, 2, 16, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(gain)
        rms.weight.copy_(gain)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
    torch.testing.assert_close(layer(x), expected)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
    torch.testing.assert_close(rms(x), expected)


def test_rotated_inner_products_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    length, base = 12, 100.0
    q_L, k_L = (rotate(x.expand(1, length, 1, 8), base)[0, :, 0] for x in (q, k))
    products = q_L @ k_L.T
    for distance in range(1 - length, length):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products.unique().numel() >= 2 * length - 1
    torch.testing.assert_close(q_L[0], q)
    torch.testing.assert_close(q_L.norm(dim=-1), q.norm().expand(length))


def test_rotation_turns_pairs_at_the_published_frequencies() -> None:
    x = torch.zeros(1, 6, 1, 8, dtype=torch.float64)
    x[..., 1] = 1
    angle = 5 * 10_000.0 ** (-2 / 8)
    rotated = rotate(x, 10_000.0)[0, 5, 0]
    expected = torch.zeros(8, dtype=torch.float64)
    expected[1], expected[5] = math.cos(angle), math.sin(angle)
    torch.testing.assert_close(rotated, expected)


@all_blocks
def test_every_output_sees_every_input(settings: dict[str, Any]) -> None:
    model = perturbed(Denoiser(config(**settings)))
    ids, level = inputs(model.config, rows=1)
    base = logits_of(model, ids, level)[:, :VOCAB]
    for changed in (0, LENGTH - 1):
        other = ids.clone()
        other[0, changed] = (ids[0, changed] + 1) % VOCAB
        change = (logits_of(model, other, level)[:, :VOCAB] - base).nan_to_num().abs().max(1).values
        assert (change > 1e-4).all()


def test_order_matters_and_samples_do_not_mix() -> None:
    model = perturbed(Denoiser(config()))
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
    model = perturbed(Denoiser(config(**settings)), scale=0.1)
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
    model = perturbed(Denoiser(config(dropout=0.5)))
    ids, level = inputs(model.config)
    assert not torch.equal(logits_of(model, ids, level), logits_of(model, ids, level))
    model.eval()
    assert torch.equal(logits_of(model, ids, level), logits_of(model, ids, level))
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("block", ["adaln", "pre_norm"])
def test_a_shifted_output_is_read_off_the_position_before(block: str) -> None:
    settings = {"block": block, "time_conditioning": block == "adaln"}
    plain = perturbed(Denoiser(config(**settings)))
    shifted = Denoiser(config(**settings, shifted_output=True))
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
    model = perturbed(Denoiser(config(attention="causal")))
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
    model = Denoiser(config(**PLAIN[1]))
    ids = torch.zeros(1, LENGTH + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="8 positions, but the model has learned only 7"):
        logits_of(model, ids, torch.zeros(1, 1))


def test_the_total_noise_is_mdlms() -> None:
    model = perturbed(Denoiser(config(time_conditioning=True, time_input="noise")))
    ids, _ = inputs(model.config)
    level = torch.tensor([[0.0], [0.5], [1.0]])
    _, c_BKC = model.embedding((level, ids))
    sigma = torch.tensor([[0.0], [-math.log(1 - 0.999 * 0.5)], [-math.log(0.001)]])
    first = nn.functional.silu(model.embedding.time_in(sinusoid(sigma)))
    expected = nn.functional.silu(model.embedding.time_out(first))
    torch.testing.assert_close(c_BKC, expected, rtol=1e-4, atol=1e-4)
