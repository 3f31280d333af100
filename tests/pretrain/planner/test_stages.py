from dataclasses import replace

import pytest
import torch

from model.architectures.dit import DiT
from model.networks.build import build
from model.networks.flops import training_flops_per_token
from pretrain.planner.partition import ACTIVE_SHARE
from pretrain.planner.plan import count_parameters
from pretrain.planner.stages import stages

MODEL = DiT(vocab_size=1000, width=32, num_layers=6, num_heads=4, conditioning_width=16)
MODELS = {
    "gelu": MODEL,
    "swiglu": replace(MODEL, mlp="swiglu", norm="rmsnorm", mlp_width=96),
    "tied": replace(MODEL, tied_head=True),
    "one block": replace(MODEL, num_layers=1, mask_id=3),
    "grouped": replace(MODEL, num_kv_heads=2, qk_norm=True, qkv_bias=True),
}
LENGTH = 64


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    with torch.device("meta"):
        real = sum(p.numel() for p in build(MODELS[name]).parameters())
    assert count_parameters(MODELS[name]) == real


def test_sizes_without_building_a_model() -> None:
    block = 4 * 8192**2 + 3 * 8192 * 28672 + 2 * 8192 + (128 + 1) * 6 * 8192
    rows = 128384  # 128256 ids and [MASK], padded to a multiple of 128
    time = (256 + 1) * 128 + (128 + 1) * 128
    head = 8192 + (128 + 1) * 2 * 8192 + rows * 8192 + rows
    model = DiT(
        vocab_size=128256, width=8192, num_layers=80, num_heads=64, mlp="swiglu", mlp_width=28672
    )
    assert count_parameters(model) == rows * 8192 + time + 80 * block + head


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize("pipeline", [1, 2, 3])
def test_the_parts_add_up_but_for_replicas(name: str, tensor: int, pipeline: int) -> None:
    model = MODELS[name]
    width, condition, blocks = model.width, model.conditioning_width, model.num_layers
    replicated = (256 + 1) * condition + (condition + 1) * condition  # the time MLP
    replicated += width + (condition + 1) * 2 * width  # the head's norm and modulation
    replicated += blocks * (2 * width + (condition + 1) * 6 * width)
    if model.qk_norm:
        replicated += blocks * 2 * model.head_width
    if model.kv_heads % tensor:  # keys and values of fewer heads than ranks
        replicated += blocks * 2 * (width + 1) * model.kv_heads * model.head_width
    if model.mlp == "gelu":
        replicated += blocks * width  # the bias after the row-parallel layer
    held = tensor * sum(stage.parameters for stage in stages(model, LENGTH, tensor, pipeline))
    tied_copy = model.num_rows * width if model.tied_head and pipeline > 1 else 0
    assert held == count_parameters(model) + (tensor - 1) * replicated + tied_copy


@pytest.mark.parametrize("pipeline", [1, 2, 4, 8])
def test_the_stages_are_the_whole_model(pipeline: int) -> None:
    found = stages(MODEL, LENGTH, 1, pipeline)
    assert [layer for stage in found for layer in stage.layers] == list(range(8))
    assert [block for stage in found for block in stage.blocks] == list(range(1, 7))
    assert [stage.has_embedding for stage in found] == [True, *[False] * (pipeline - 1)]
    assert [stage.has_head for stage in found] == [*[False] * (pipeline - 1), True]
    whole = training_flops_per_token(MODEL, LENGTH, head_share=ACTIVE_SHARE)
    assert sum(stage.operations for stage in found) == pytest.approx(whole)
