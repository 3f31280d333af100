"""Norms, rotary positions and blocks, each by itself."""

import math
from typing import Any

import torch
from small_dit import (
    LENGTH,
    config,
    perturbed,
    variants,
)

from model.architectures.dit import Block
from model.networks.build import build
from model.networks.layers import Norm, rotate


@variants
def test_every_block_starts_as_the_identity(settings: dict[str, Any]) -> None:
    model = build(config(**settings))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, LENGTH, 16, generator=generator)
    c = torch.randn(2, 1, 8, generator=generator)
    blocks = [layer for layer in model.layers.values() if isinstance(layer, Block)]
    assert len(blocks) == 2
    for block in blocks:
        assert torch.equal(block((x, c))[0], x)
    perturbed(model)
    assert not torch.isclose(blocks[0]((x, c))[0], x).any(-1).all()


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
