"""Seconds of a step on a cluster: computation at a stated MFU, bubble, traffic.

MFU (model FLOP/s utilisation, Chowdhery et al. 2022, appendix B) is given for the time in
which a GPU computes; waiting comes on top of it. All traffic is taken to wait: tensor
traffic does, DeepSpeed's ZeRO 1 and 2 reduce after backward passes and gather after the
step, and how much ZeRO 3 hides by fetching ahead depends on the kernels. The optimizer's
step is bound by memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.parallel.config import ParallelConfig
from pretrain.planner.hardware import Cluster
from pretrain.planner.memory import Memory, num_recomputed
from pretrain.planner.stages import Stage
from pretrain.planner.traffic import Traffic

DEFAULT_MFU = 0.4
_TOUCHED = 40 / 16
"""Bytes read and written for each byte of masters, moments and EMA: all of these both ways,
the gradient once, and the master again for its average."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of one step of the slowest stage, by what it does.

    Args:
        compute: recomputation included. bubble: waiting for other stages to begin or end.
        tensor: with vocabulary. data: gradients and weights.
    """

    compute: float
    bubble: float
    tensor: float
    pipeline: float
    data: float
    optimizer: float

    @property
    def step(self) -> float:
        """All of it."""
        return float(sum(vars(self).values()))


def bubble(pipeline: int, micro_batches: int) -> float:
    """The share of a step in which a stage of 1F1B idles (Narayanan et al. 2021, section 2.2)."""
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
    """Of the slowest stage.

    Args:
        tokens: positions of a rank and step.
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
    """Per token, with the forward passes (a third of the whole) that are done twice."""
    return stage.operations + num_recomputed(stage, layout) * stage.block_operations / 3
