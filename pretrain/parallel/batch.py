"""Sizes of a run's batch under a layout: data-parallel size, micro-batches, stream positions."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from configs.errors import UserError
from pretrain.launch import device
from pretrain.parallel.misfits import batch_misfits

if TYPE_CHECKING:
    from pretrain.config import RunConfig

MICRO_BATCHES_PER_STAGE = 4
"""Micro-batches under a pipeline by default, for each stage: P stages then idle for
(P - 1) / (4 P + P - 1) of a step, less than a fifth."""


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
