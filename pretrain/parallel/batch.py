"""Batch sizes and stages of a layout, and the reasons why a run cannot be divided by one."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.errors import UserError
from model.networks.config import ModelConfig
from pretrain.launch import device
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.partition import balanced, layer_costs

if TYPE_CHECKING:
    from pretrain.config import RunConfig

MICRO_BATCHES_PER_STAGE = 4
"""Micro-batches under a pipeline by default, for each stage: P stages then idle for
(P - 1) / (4 P + P - 1) of a step, less than a fifth."""


def misfits(model: ModelConfig, length: int, layout: ParallelConfig) -> list[str]:
    """Why a model, at sequences of ``length``, cannot run under a layout; empty if it can."""
    return list(each_misfit(model, length, layout))


def each_misfit(model: ModelConfig, length: int, layout: ParallelConfig) -> Iterator[str]:
    """Iterate over :func:`misfits`; those that depend least on the model come first."""
    if layout.tensor > 1:
        yield from _tensor_misfits(model, layout.tensor)
    if model.max_target_length is not None and length > model.max_target_length:
        yield (
            f"data.sequence_length ({length}) is more than the {model.max_target_length} "
            "positions that the model learns"
        )
    if layout.pipeline > 1 and layout.pipeline > (layers := model.total_layers):
        yield (
            f"parallel.pipeline {layout.pipeline} is more than the {layers} layers "
            "(embedding, blocks, head)"
        )
    if not layout.sequence_parallel:
        return
    if length % layout.tensor:
        yield (
            f"data.sequence_length ({length}) does not divide by parallel.tensor "
            f"{layout.tensor}, which parallel.sequence_parallel needs"
        )
    if model.dropout:
        yield (
            "model.dropout acts on replicated activations only; set it to 0 or "
            "parallel.sequence_parallel to false"
        )


def _tensor_misfits(model: ModelConfig, tensor: int) -> Iterator[str]:
    if model.num_heads % tensor:
        yield f"model.num_heads ({model.num_heads}) does not divide by parallel.tensor {tensor}"
    if model.num_rows % tensor:
        yield (f"parallel.tensor {tensor} does not divide the padded vocabulary ({model.num_rows})")
    if model.hidden_width % tensor:
        yield (
            f"parallel.tensor {tensor} does not divide the MLP's hidden width "
            f"({model.hidden_width})"
        )


def batch_misfits(batch: int, size: int, layout: ParallelConfig) -> Iterator[str]:
    """Why a global batch cannot be divided among ``size`` data-parallel ranks."""
    if batch % size:
        yield (
            f"global_batch {batch} does not divide by the data-parallel size "
            f"{size}; choose a multiple of {size}"
        )
    elif layout.micro_batch is not None and batch // size % layout.micro_batch:
        yield (
            f"parallel.micro_batch: each rank has {batch // size} samples of the global batch, "
            f"which does not divide by parallel.micro_batch {layout.micro_batch}"
        )


def data_size(config: "RunConfig", ranks: int | None) -> int:
    """D, the data-parallel size.

    Args:
        ranks: that exist; None for as many as the layout needs.

    Raises:
        UserError: layout, ranks and batch do not divide one another, or this device does not
            support the precision.
    """
    if config.precision == "fp16" and not device.num_gpus():
        raise UserError("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    layout = config.parallel
    model_size = layout.tensor * layout.pipeline
    if ranks is None:
        ranks = model_size * (layout.data or 1)
    if ranks % model_size:
        raise UserError(
            f"{ranks} ranks do not divide by tensor x pipeline = {model_size}; "
            "start a multiple of it or change parallel.tensor and parallel.pipeline"
        )
    size = ranks // model_size
    if layout.data is not None and layout.data != size:
        raise UserError(
            f"parallel.data is {layout.data}, but {ranks} ranks make it {size}; "
            "leave it out or start as many ranks as the layout needs"
        )
    for problem in batch_misfits(config.global_batch, size, layout):
        raise UserError(problem)
    return size


def micro_batch(config: "RunConfig", size: int) -> int:
    """Samples of a rank per forward pass, at data-parallel size ``size``."""
    layout = config.parallel
    share = config.global_batch // size
    if layout.micro_batch is not None:
        return layout.micro_batch
    if layout.pipeline == 1:
        return share
    wanted = min(share, MICRO_BATCHES_PER_STAGE * layout.pipeline)
    return max(b for b in divisors(share) if share // b >= wanted)


def divisors(number: int) -> list[int]:
    """All divisors of a number, in ascending order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return [*small, *(number // n for n in reversed(small) if n * n != number)]


def positions(config: "RunConfig", step: int, rank: int, size: int) -> Iterator[range]:
    """The stream positions of each micro-batch of a step, for data rank ``rank`` of ``size``.

    A step (from 1) takes N samples in the order of the stream; ranks take turns.
    """
    samples = micro_batch(config, size)
    first = (step - 1) * config.global_batch
    for start in range(first, first + config.global_batch, samples * size):
        mine = start + rank * samples
        yield range(mine, mine + samples)


def span_of(model: ModelConfig, length: int, stages: int, stage: int) -> range:
    """The layers of one stage of a pipeline."""
    bounds = balanced(layer_costs(model, length), stages)
    return range(bounds[stage], bounds[stage + 1])
