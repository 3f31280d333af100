from typing import Any

import pytest
import torch
from asking import logits_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.architectures.dit import Block, DiT
from model.networks.build import build
from model.networks.flops import block_parameters, training_flops_per_token
from model.networks.linears import DenseFactory

TINY: dict[str, Any] = {"vocab_size": 5, "width": 4, "num_heads": 1, "num_layers": 2}


def test_numbers_computed_by_hand() -> None:
    gelu = DiT(**TINY)
    assert block_parameters(gelu) == 4 * 16 + (4 * 16 + 16) + (16 * 4 + 4)
    assert gelu.per_token_parameters() == 936
    assert gelu.per_token_parameters(head_share=0.5) == 680
    assert training_flops_per_token(gelu, 8) == 6384
    assert training_flops_per_token(gelu, 8, head_share=0.5) == 4848
    swiglu = DiT(**TINY, mlp="swiglu")
    assert block_parameters(swiglu) == 4 * 16 + 3 * 4 * 64
    assert training_flops_per_token(swiglu, 8, head_share=0.0) == 6 * 2 * 832 + 768


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("mlp_width", [None, 7])
def test_a_block_has_the_parameters_counted(mlp: Any, mlp_width: int | None) -> None:
    config = DiT(vocab_size=5, width=12, num_heads=2, mlp=mlp, mlp_width=mlp_width)
    names = dict(Block(config, DenseFactory()).named_parameters())
    counted = {n: p for n, p in names.items() if "modulation" not in n and "norm" not in n}
    assert len(names) - len(counted) == 4
    assert block_parameters(config) == sum(p.numel() for p in counted.values())


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_a_block_of_shared_keys_has_the_parameters_counted(groups: int, biased: bool) -> None:
    config = DiT(
        vocab_size=5,
        width=12,
        num_heads=4,
        num_kv_heads=groups,
        head_size=6,
        qkv_bias=biased,
        attention_bias=biased,
    )
    names = dict(Block(config, DenseFactory()).named_parameters())
    counted = [p for n, p in names.items() if "modulation" not in n and "norm" not in n]
    assert block_parameters(config) == sum(p.numel() for p in counted)


def test_the_formula_agrees_with_the_operations_torch_performs() -> None:
    config = DiT(
        vocab_size=100, width=32, num_heads=2, num_layers=2, mlp="swiglu", conditioning_width=1
    )
    length = 48
    model = build(config).double()
    ids = torch.arange(length)[None] % 100
    where = torch.arange(length)[None] % 2 == 0
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits_of(model, ids, torch.ones(1, 1), where)[:, :100].sum().backward()
    formula = training_flops_per_token(config, length, head_share=0.5) * length
    assert formula <= counter.get_total_flops() <= 1.01 * formula
