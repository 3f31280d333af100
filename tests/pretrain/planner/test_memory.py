from dataclasses import replace
from typing import Any

import pytest
import torch
from asking import logits_of
from torch import Tensor

from model.architectures.dit import DiT
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.memory import Memory, activation_bytes, active_share, memory, num_recomputed
from pretrain.planner.stages import stages

MODEL = DiT(vocab_size=1000, width=64, num_layers=4, num_heads=4)
LENGTH = 64


def fullest(model: ModelConfig = MODEL, precision: str = "bf16", **layout: Any) -> Memory:
    """Of the first stage, with four micro-batches of two samples."""
    complete = replace(ParallelConfig(data=2, micro_batch=2), **layout)
    first = stages(model, LENGTH, complete.tensor, complete.pipeline)[0]
    return memory(model, first, complete, precision, LENGTH, 4)


def test_mixed_precision_state_by_hand() -> None:
    found = fullest(data=1)
    parameters = stages(MODEL, LENGTH, 1, 1)[0].parameters
    assert found.weights == 2 * parameters
    assert found.gradients == 4 * parameters
    assert found.optimizer == 12 * parameters
    assert found.ema == 4 * parameters
    assert found.total == 22 * parameters + found.activations + found.buffers


def test_each_stage_of_zero_shards_more() -> None:
    one, two, three = (fullest(data=8, zero_stage=stage) for stage in (1, 2, 3))
    assert one.optimizer == pytest.approx(12 * one.weights / 2 / 8, rel=1e-3)
    assert two.optimizer == one.optimizer
    assert two.gradients == pytest.approx(one.gradients / 8, rel=1e-3)
    assert two.weights == one.weights
    small = 2 * sum(n * size for size, n in stages(MODEL, LENGTH, 1, 1)[0].tensors.sizes)
    assert three.weights == pytest.approx(one.weights / 8 + small, rel=1e-2)


def test_padding_grows_with_the_ranks() -> None:
    sizes = [fullest(data=data).weights for data in (1, 3, 1000)]
    assert sizes == sorted(sizes)
    assert sizes[-1] - sizes[0] < 2 * 2 * 2 * 1000


@pytest.mark.parametrize(
    "less",
    [
        {"tensor": 2},
        {"tensor": 4, "sequence_parallel": True},
        {"micro_batch": 1},
        {"recompute_every": 1},
        {"recompute_every": 2},
        {"pipeline": 3, "micro_batch": 1},
    ],
)
def test_each_measure_saves_activations(less: dict[str, Any]) -> None:
    assert fullest(**less).activations < fullest().activations


def test_sequence_parallelism_and_recomputation_save_on_top_of_others() -> None:
    layouts: list[dict[str, Any]] = [
        {"tensor": 4},
        {"tensor": 4, "sequence_parallel": True},
        {"tensor": 4, "sequence_parallel": True, "recompute_every": 2},
        {"tensor": 4, "sequence_parallel": True, "recompute_every": 1},
    ]
    found = [fullest(**layout).activations for layout in layouts]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_an_early_stage_keeps_more_micro_batches() -> None:
    model = replace(MODEL, num_layers=13)
    layout = ParallelConfig(data=1, pipeline=4, micro_batch=1)
    kept = [memory(model, s, layout, "bf16", LENGTH, 8) for s in stages(model, LENGTH, 1, 4)]
    assert kept[1].activations > 1.4 * kept[2].activations


def test_blocks_are_recomputed_by_their_place_in_the_model() -> None:
    layout = ParallelConfig(pipeline=2, recompute_every=2)
    by_stage = [num_recomputed(stage, layout) for stage in stages(MODEL, LENGTH, 1, 2)]
    assert sum(by_stage) == 2
    every = ParallelConfig(recompute_every=1)
    assert num_recomputed(stages(MODEL, LENGTH, 1, 1)[0], every) == 4


def test_one_sample_may_be_noisy_throughout() -> None:
    assert active_share(1) == 1.0
    assert active_share(2) > active_share(64) > 0.5


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_keeps_what_autograd_keeps(mlp: Any, dtype: torch.dtype) -> None:
    def kept(num_layers: int) -> tuple[int, int]:
        model = replace(MODEL, mlp=mlp, num_layers=num_layers)
        stage = stages(model, LENGTH, 1, 1)[0]
        layout = ParallelConfig(data=1, micro_batch=2)
        planned = activation_bytes(model, stage, layout, dtype.itemsize, 2 * LENGTH, 1)
        return _saved_bytes(build(model).to(dtype)), planned

    (real_2, planned_2), (real_3, planned_3) = kept(2), kept(3)
    assert planned_3 - planned_2 == pytest.approx(real_3 - real_2, rel=0.03)


def _saved_bytes(denoiser: Network) -> int:
    """Bytes of the storages that autograd keeps after a forward pass, parameters apart."""
    known = {parameter.untyped_storage().data_ptr() for parameter in denoiser.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits_of(denoiser, torch.zeros(2, LENGTH, dtype=torch.long), torch.full((2, 1), 0.5))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
