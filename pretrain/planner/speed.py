"""Predicted step time on a cluster: compute at a given MFU, pipeline bubble, communication.

MFU (model FLOP/s utilization, Chowdhery et al. 2022, appendix B) is for the time in
which a GPU computes; waiting is added to it. No communication is assumed to overlap with compute:
tensor-parallel communication does not, DeepSpeed's ZeRO 1 and 2 reduce after backward passes and
gather after the step, and how much ZeRO 3 hides by prefetching depends on the kernels. The
optimizer step is memory-bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.parallel.config import ParallelConfig
from pretrain.planner.hardware import Cluster
from pretrain.planner.memory import Memory, num_recomputed
from pretrain.planner.stages import Stage
from pretrain.planner.traffic import Traffic

_TOUCHED = 40 / 16
"""Bytes read and written per byte of master weights, moments and EMA: each is read and written,
the gradient is read, and the master is read again for the EMA."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Step time in seconds of the slowest stage, by kind.

    Args:
        compute: including recomputation. bubble: waiting for other stages.
        tensor: tensor-parallel traffic, vocabulary included. data: gradients and weights.
    """

    compute: float
    bubble: float
    tensor: float
    pipeline: float
    data: float
    optimizer: float

    @property
    def step(self) -> float:
        """Total step time in seconds."""
        return float(sum(vars(self).values()))


def bubble(pipeline: int, micro_batches: int) -> float:
    """Pipeline bubble of 1F1B: idle share of a step (Narayanan et al. 2021, section 2.2)."""
    return (pipeline - 1) / (micro_batches + pipeline - 1)


def speed(
    parts: Sequence[tuple[Stage, Memory, Traffic]],
    layout: ParallelConfig,
    precision: str,
    tokens: int,
    micro_batches: int,
    cluster: Cluster,
    mfu: float,
) -> Speed:
    """Predicted step time of the slowest stage.

    Args:
        tokens: positions per rank and step.
    """
    assert layout.data is not None
    rates = {
        "tensor": cluster.rate(1, layout.tensor),
        "data": cluster.rate(layout.tensor, layout.data),
        "pipeline": cluster.rate(layout.tensor * layout.data, 2),
    }
    reached = mfu * cluster.gpu.flops(precision)
    idle = bubble(layout.pipeline, micro_batches)
    found = []
    for stage, memory, traffic in parts:
        compute = _operations(stage, layout) * tokens / layout.tensor / reached
        tensor = (traffic.tensor + traffic.vocabulary) / rates["tensor"]
        pipeline = traffic.pipeline / rates["pipeline"]
        found.append(
            Speed(
                compute=compute,
                bubble=(compute + tensor + pipeline) * idle / (1 - idle),
                tensor=tensor,
                pipeline=pipeline,
                data=(traffic.gradients + traffic.weights) / rates["data"],
                optimizer=_TOUCHED * (memory.optimizer + memory.ema) / cluster.gpu.memory_rate,
            )
        )
    return max(found, key=lambda speed: speed.step)


def _operations(stage: Stage, layout: ParallelConfig) -> float:
    """FLOPs per token, including recomputed forward passes (a third of a block's total)."""
    return stage.operations + num_recomputed(stage, layout) * stage.block_operations / 3
