"""Memory estimate of a rank in bytes, by kind: DeepSpeed's states and saved activations.

Model and optimizer states follow Rajbhandari et al. 2020 (ZeRO, section 3) with the padding of
DeepSpeed 0.19: stages 1 and 2 pad the flat buffers of the decayed and the other parameters to
multiples of 2 D; stage 3 pads each parameter to a multiple of D and also keeps small ones
unsharded. Master weights are separate from the weights in fp32 too. Activations follow
Korthikanti et al. 2022 (section 4), counted tensor by tensor as :mod:`model.networks.layers` saves
them on a GPU; they are an estimate, since kernels and allocators differ.
"""

import math
from dataclasses import dataclass

from model.networks.config import ModelConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.settings import MAX_LIVE_PARAMETERS, reduce_bucket_size
from pretrain.planner.partition import ACTIVE_SHARE
from pretrain.planner.stages import Stage

ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes per element of weights and activations, by the precision of the run."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of one rank by kind, in bytes.

    Args:
        weights: includes an fp32 copy of frozen parameters.
        optimizer: fp32 master weights and Adam's two moments. ema: fp32 EMA of the masters.
        buffers: gradient reduction buckets, and weights gathered by ZeRO 3.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    buffers: int

    @property
    def total(self) -> int:
        """Sum over all kinds, in bytes."""
        return sum(vars(self).values())


def memory(
    model: ModelConfig,
    stage: Stage,
    layout: ParallelConfig,
    precision: str,
    length: int,
    micro_batches: int,
    head_share: float = ACTIVE_SHARE,
) -> Memory:
    """Memory of a rank of pipeline stage ``stage``.

    Args:
        head_share: average share of the positions at which the head runs.
        layout: with ``data`` and ``micro_batch`` set.
        micro_batches: micro-batches per rank and step.
    """
    assert layout.data is not None
    assert layout.micro_batch is not None
    data, zero = layout.data, max(1, layout.zero_stage)
    weight = ELEMENT_BYTES[precision]
    held, shards, kept_whole = _elements(stage, data, zero, layout.param_persistence_threshold)
    frozen = sum(num * math.ceil(size / data) for size, num in stage.tensors.frozen)
    still = frozen if zero == 3 else stage.parameters - stage.trained
    accumulated = 2 if precision == "fp16" else 4
    tokens = layout.micro_batch * length
    in_flight = min(layout.pipeline - stage.index, micro_batches)
    activations = activation_bytes(model, stage, layout, weight, tokens, in_flight, head_share)
    return Memory(
        weights=weight * (held + kept_whole + still) + 4 * frozen,
        gradients=accumulated * (held if zero == 1 else shards),
        optimizer=12 * shards,
        ema=4 * shards,
        activations=activations,
        buffers=_buffer_bytes(stage, data, zero, precision, kept_whole, activations),
    )


def _elements(stage: Stage, data: int, zero: int, threshold: int) -> tuple[int, int, int]:
    """Number of parameters that a rank holds, owns the state of, and keeps unsharded besides."""
    if zero < 3:
        groups = (stage.tensors.decayed, stage.trained - stage.tensors.decayed)
        shards = sum(2 * math.ceil(group / (2 * data)) for group in groups)
        return shards * data, shards, 0
    shards = sum(num * math.ceil(size / data) for size, num in stage.tensors.sizes)
    sizes = (*stage.tensors.sizes, *stage.tensors.frozen)
    small = sum(num * size for size, num in sizes if size <= threshold)
    return shards, shards, small if data > 1 else 0


def _buffer_bytes(
    stage: Stage, data: int, zero: int, precision: str, kept_whole: int, activations: int
) -> int:
    weight = ELEMENT_BYTES[precision]
    if zero == 1 and precision == "bf16":
        # Gradient sums are rounded into a copy for the reduction, after activations are freed.
        return max(0, weight * stage.parameters - activations) if data > 1 else 0
    bucket = weight * reduce_bucket_size(stage.parameters)
    if zero < 3 or data == 1:
        return bucket
    return bucket + weight * min(stage.parameters - kept_whole, MAX_LIVE_PARAMETERS)


def active_share(micro_batch: int, head_share: float = ACTIVE_SHARE) -> float:
    """Share of the positions at which the head runs in a worst-case micro-batch.

    A sample's noise level is uniform, and so is the share of its positions that are noisy;
    this is three standard deviations above the mean over ``micro_batch`` samples.
    """
    return min(1.0, head_share + 3 * (12 * micro_batch) ** -0.5)


def activation_bytes(
    model: ModelConfig,
    stage: Stage,
    layout: ParallelConfig,
    element: int,
    tokens: int,
    in_flight: int,
    head_share: float = ACTIVE_SHARE,
) -> int:
    """Bytes of activations saved for backward, over micro-batches in flight of ``tokens`` each.

    Includes one block's gradients, one recomputed block, and the logits' gradient.
    """
    block = _block_bytes(model, layout, element)
    recomputed = num_recomputed(stage, layout)
    stream_parts = layout.tensor if layout.sequence_parallel else 1
    kept = (len(stage.blocks) - recomputed) * block
    kept += recomputed * element * model.width / stream_parts
    total = in_flight * kept
    if len(stage.blocks):
        total += element * (2 * model.width + 2 * model.hidden_width / layout.tensor)
    if recomputed:
        total += block
    if stage.has_head:
        total += _head_bytes(model, layout, element, head_share)
    return int(tokens * total)


def num_recomputed(stage: Stage, layout: ParallelConfig) -> int:
    """Number of blocks of a stage under activation checkpointing."""
    if not layout.recompute_every:
        return 0
    return sum(index % layout.recompute_every == 0 for index in stage.blocks)


def _block_bytes(model: ModelConfig, layout: ParallelConfig, element: int) -> float:
    """Bytes of activations that one block saves per position.

    Of width D: the inputs of both norms, their outputs, their modulated outputs (the inputs of
    the matrix products, not split even under sequence parallelism) and the outputs of both
    branches. Split over T: queries, keys, values, attention output and the MLP's hidden
    activations.
    """
    width, tensor = model.width, layout.tensor
    stream_parts = tensor if layout.sequence_parallel else 1
    split = model.split_activations(tensor) / tensor
    masks = 2 * width if model.dropout else 0  # one byte per element
    return element * (6 * width / stream_parts + 2 * width + split) + masks


def _head_bytes(
    model: ModelConfig, layout: ParallelConfig, element: int, head_share: float
) -> float:
    """Bytes per position of the head's inputs, the logits and their gradient.

    Sharded logits are also converted to fp32 in full; unsharded ones only in chunks.
    """
    assert layout.micro_batch is not None
    logit = 2 * element + (4 if layout.tensor > 1 else 0)
    active = 3 * element * model.width + logit * model.num_rows / layout.tensor
    gathered = element * model.width if layout.sequence_parallel else 0
    return active_share(layout.micro_batch, head_share) * active + gathered
