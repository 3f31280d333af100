"""Communication volume: bytes that a rank sends per optimizer step, by kind.

Collectives are counted as rings over n ranks (Patarasu & Yuan 2009): an all-gather or a
reduce-scatter of S bytes sends (n - 1) / n S from each rank, an all-reduce twice as much.
Tensor parallelism all-reduces the stream twice per block and direction (Shoeybi et al. 2019,
section 3); with sequence parallelism each all-reduce becomes an all-gather and a reduce-scatter of
the same total volume (Korthikanti et al. 2022, section 4.2.2). DeepSpeed's ZeRO 1 reduces
gradients once per step, 2 and 3 at every micro-batch, and 3 gathers the weights twice for each; 1
and 2 reduce by all-reduce, 3 by reduce-scatter.
"""

from dataclasses import dataclass

from model.networks.config import ModelConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.memory import ELEMENT_BYTES, num_recomputed
from pretrain.planner.partition import ACTIVE_SHARE
from pretrain.planner.stages import Stage


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that one rank sends per step, by kind; it receives about as many.

    Args:
        tensor: all-reduces of the stream within blocks.
        vocabulary: the sharded embedding's output, the sharded head's input, and the loss.
        pipeline: activations forward, their gradients backward, a tied weight's gradient.
        gradients: reduced over the data-parallel ranks. weights: gathered over them.
    """

    tensor: float
    vocabulary: float
    pipeline: float
    gradients: float
    weights: float

    @property
    def total(self) -> float:
        """Sum over all kinds, in bytes."""
        return float(sum(vars(self).values()))


def traffic(
    model: ModelConfig,
    stage: Stage,
    layout: ParallelConfig,
    precision: str,
    length: int,
    micro_batches: int,
    head_share: float = ACTIVE_SHARE,
) -> Traffic:
    """Traffic of a rank of ``stage``; for arguments see :func:`pretrain.planner.memory.memory`."""
    assert layout.micro_batch is not None
    element = ELEMENT_BYTES[precision]
    tokens = micro_batches * layout.micro_batch * length
    stream = float(element * model.width * tokens)
    gradients, weights = _data(stage, layout, element, micro_batches)
    return Traffic(
        tensor=_tensor(stage, layout, stream),
        vocabulary=_vocabulary(stage, layout, stream, head_share * stream, head_share * tokens),
        pipeline=_pipeline(model, stage, layout, stream),
        gradients=gradients,
        weights=weights,
    )


def ring(size: int) -> float:
    """(n - 1) / n: share of the bytes that each rank sends in a ring all-gather over n ranks."""
    return (size - 1) / size


def _tensor(stage: Stage, layout: ParallelConfig, stream: float) -> float:
    """Tensor-parallel traffic: two all-reduces forward, two backward, two per recomputation."""
    sums = 4 * len(stage.blocks) + 2 * num_recomputed(stage, layout)
    return 2 * sums * ring(layout.tensor) * stream


def _vocabulary(
    stage: Stage, layout: ParallelConfig, stream: float, active: float, predicted: float
) -> float:
    """Vocabulary-parallel traffic of embedding, head and loss.

    Args:
        active: bytes of the stream at positions where the head runs; predicted: their number.
    """
    total, gathers = 0.0, 1 if layout.sequence_parallel else 0
    if stage.has_embedding:
        total += (2 + gathers) * stream
    if stage.has_head:
        largest_sum_and_target = 3 * 4 * predicted
        total += 2 * (active + largest_sum_and_target) + gathers * stream
    return ring(layout.tensor) * total


def _pipeline(model: ModelConfig, stage: Stage, layout: ParallelConfig, stream: float) -> float:
    if layout.pipeline == 1:
        return 0.0
    parts = layout.tensor if layout.sequence_parallel else 1
    neighbours = 2 - stage.has_embedding - stage.has_head
    tied = model.shares_embedding and (stage.has_embedding or stage.has_head)
    tied_bytes = 4.0 * model.num_rows * model.table_width / layout.tensor if tied else 0.0
    return neighbours * stream / parts + tied_bytes


def _data(
    stage: Stage, layout: ParallelConfig, element: int, micro_batches: int
) -> tuple[float, float]:
    """Bytes of gradients and of weights sent over the data-parallel ranks."""
    assert layout.data is not None
    once = ring(layout.data) * element * stage.parameters
    if layout.zero_stage < 3:
        times = micro_batches if layout.zero_stage == 2 else 1
        return 2 * times * once, once
    threshold = layout.param_persistence_threshold
    small = sum(num * size for size, num in stage.tensors.sizes if size <= threshold)
    whole = ring(layout.data) * element * small
    return micro_batches * once, 2 * micro_batches * (once - whole) + whole
