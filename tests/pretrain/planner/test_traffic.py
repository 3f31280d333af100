from dataclasses import replace
from typing import Any

import pytest

from model.architectures.dit import DiT
from model.networks.config import ModelConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.stages import stages
from pretrain.planner.traffic import Traffic, traffic

MODEL = DiT(vocab_size=1000, width=64, num_layers=4, num_heads=4)
LENGTH, MICRO_BATCHES = 64, 4
STREAM = 2 * 64 * LENGTH * 2 * MICRO_BATCHES
"""Bytes of the stream ``[B, L, D]`` of a step: two samples in a micro-batch, in bf16."""


def sent(stage: int = 0, model: ModelConfig = MODEL, **layout: Any) -> Traffic:
    complete = replace(ParallelConfig(data=1, micro_batch=2), **layout)
    found = stages(model, LENGTH, complete.tensor, complete.pipeline)[stage]
    return traffic(model, found, complete, "bf16", LENGTH, MICRO_BATCHES)


def test_one_rank_sends_nothing() -> None:
    assert sent().total == 0


def test_tensor_parallelism_sums_the_stream_four_times_a_block() -> None:
    assert sent(tensor=4).tensor == 4 * 4 * 2 * (3 / 4) * STREAM
    assert sent(tensor=4, recompute_every=1).tensor == 6 * 4 * 2 * (3 / 4) * STREAM
    assert sent(tensor=4, sequence_parallel=True).tensor == sent(tensor=4).tensor
    vocabulary = sent(tensor=4).vocabulary
    assert 3 * (3 / 4) * STREAM < vocabulary < 3.2 * (3 / 4) * STREAM


def test_a_stage_sends_to_its_neighbours() -> None:
    assert [sent(stage, pipeline=3).pipeline for stage in range(3)] == [STREAM, 2 * STREAM, STREAM]
    halved = sent(1, pipeline=3, tensor=2, sequence_parallel=True)
    assert halved.pipeline == STREAM
    tied = sent(0, replace(MODEL, tied_head=True), pipeline=3)
    assert tied.pipeline == STREAM + 4 * MODEL.num_rows * MODEL.width


def test_each_stage_of_zero_moves_what_it_must() -> None:
    parameters = stages(MODEL, LENGTH, 1, 1)[0].parameters
    once = (7 / 8) * 2 * parameters
    assert (sent(data=8).gradients, sent(data=8).weights) == (2 * once, once)
    two = sent(data=8, zero_stage=2)
    assert (two.gradients, two.weights) == (MICRO_BATCHES * 2 * once, once)


def test_zero_3_gathers_large_weights_twice_a_micro_batch() -> None:
    wide = replace(MODEL, width=512)
    sizes = stages(wide, LENGTH, 1, 1)[0].tensors.sizes
    large = (7 / 8) * 2 * sum(size * num for size, num in sizes if size > 100_000)
    small = (7 / 8) * 2 * sum(size * num for size, num in sizes if size <= 100_000)
    three = sent(model=wide, data=8, zero_stage=3)
    assert three.gradients == pytest.approx(MICRO_BATCHES * (large + small))
    assert three.weights == pytest.approx(2 * MICRO_BATCHES * large + small)
