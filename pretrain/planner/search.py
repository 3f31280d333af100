"""Search for the fastest parallel layout that fits the memory of a cluster.

Candidates: T is a power of two within a node that divides heads, MLP and vocabulary; P any
divisor of the remaining ranks with at least as many samples as stages; D the rest, if it
divides the global batch; ZeRO 1 to 3 without a pipeline, 1 with one. For each of these, memory is
reduced by the cheapest sufficient measure: smaller micro-batches, then sequence parallelism, then
activation checkpointing of half or all of the blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from configs.errors import UserError
from pretrain.config import RunConfig
from pretrain.parallel.batch import divisors, micro_batch
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.misfits import misfits
from pretrain.planner.hardware import DEFAULT_MFU, GIB, GPUS, Cluster
from pretrain.planner.plan import Plan, lay_out
from pretrain.planner.speed import Speed

USABLE = 0.9
"""Usable share of a GPU's memory; the rest is for CUDA, NCCL and fragmentation."""

AS_FAST = 1.1
"""Among layouts whose step time is within this factor of the fastest, which is less than the error
of predictions, the simplest is recommended."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout with its plan, predicted speed, and whether it fits in memory."""

    plan: Plan
    speed: Speed
    fits: bool

    @property
    def tokens_per_second(self) -> float:
        """Predicted throughput of the cluster."""
        return self.plan.tokens_per_step / self.speed.step

    @property
    def simplicity(self) -> tuple[int, ...]:
        """Sort key by complexity: smaller is simpler."""
        layout = self.plan.layout
        return (
            layout.tensor * layout.pipeline,
            layout.zero_stage,
            layout.sequence_parallel,
            layout.recompute_every > 0,
            layout.pipeline,
        )


def usable(cluster: Cluster) -> float:
    """Bytes of a GPU's memory that a plan may use."""
    return USABLE * cluster.gpu.memory


def candidates(config: RunConfig, cluster: Cluster, mfu: float = DEFAULT_MFU) -> list[Candidate]:
    """One candidate per (D, T, P, ZeRO): those that fit, fastest first; then the others,
    smallest first.

    Raises:
        UserError: no layout divides ranks and batch.
    """
    found = [_best(config, options, cluster, mfu) for options in _layouts(config, cluster)]
    if not found:
        raise UserError(_indivisible(config, cluster))
    return sorted(found, key=lambda one: (not one.fits, _order(one), one.simplicity))


def _order(one: Candidate) -> float:
    return one.speed.step if one.fits else one.plan.memory.total


def choose(ordered: list[Candidate]) -> Candidate | None:
    """The candidate to recommend; None if none fits."""
    fitting = [one for one in ordered if one.fits]
    if not fitting:
        return None
    bound = AS_FAST * min(one.speed.step for one in fitting)
    return min((one for one in fitting if one.speed.step <= bound), key=lambda one: one.simplicity)


def recommend(config: RunConfig, cluster: Cluster, mfu: float = DEFAULT_MFU) -> ParallelConfig:
    """The recommended layout at the configuration's global batch, with all sizes set.

    Raises:
        UserError: no layout divides ranks and batch, or none fits; the message lists what would.
    """
    ordered = candidates(config, cluster, mfu)
    chosen = choose(ordered)
    if chosen is None:
        raise UserError(shortage(config, cluster, ordered[0]))
    return chosen.plan.layout


def assess(config: RunConfig, layout: ParallelConfig, cluster: Cluster, mfu: float) -> Candidate:
    """Plan and predict a layout whose sizes are all set."""
    numbers = lay_out(config, layout)
    fits = numbers.memory.total <= usable(cluster)
    return Candidate(plan=numbers, speed=numbers.speed(cluster, mfu), fits=fits)


def _layouts(config: RunConfig, cluster: Cluster) -> Iterator[list[ParallelConfig]]:
    """For each (D, T, P, ZeRO), the memory-saving variants of the layout, cheapest first."""
    model, length = config.model, config.data.sequence_length
    tensor = 1
    while tensor <= cluster.ranks_per_node:
        divides = cluster.ranks_per_node % tensor == cluster.ranks % tensor == 0
        if divides and not misfits(model, length, ParallelConfig(tensor=tensor)):
            yield from _with_tensor(config, cluster, tensor)
        tensor *= 2


def _with_tensor(
    config: RunConfig, cluster: Cluster, tensor: int
) -> Iterator[list[ParallelConfig]]:
    rest = cluster.ranks // tensor
    for pipeline in range(1, min(rest, config.model.total_layers) + 1):
        data = rest // pipeline
        if rest % pipeline or config.global_batch % data:
            continue
        if pipeline > 1 and config.global_batch // data < pipeline:
            continue
        for zero in (1, 2, 3) if pipeline == 1 and data > 1 else (1,):
            base = ParallelConfig(data=data, tensor=tensor, pipeline=pipeline, zero_stage=zero)
            yield list(_measures(config, base))


def _measures(config: RunConfig, base: ParallelConfig) -> Iterator[ParallelConfig]:
    levels = [base]
    split = replace(base, sequence_parallel=True) if base.tensor > 1 else base
    if split != base and not misfits(config.model, config.data.sequence_length, split):
        levels.append(split)
    levels += [replace(levels[-1], recompute_every=every) for every in (2, 1)]
    assert base.data is not None
    share = config.global_batch // base.data
    largest = micro_batch(replace(config, parallel=base), base.data)
    sizes = [size for size in reversed(divisors(share)) if size <= largest]
    for level in levels:
        for size in sizes:
            yield replace(level, micro_batch=size)


def _best(
    config: RunConfig, options: list[ParallelConfig], cluster: Cluster, mfu: float
) -> Candidate:
    """The fastest among each level's first layout that fits; if none fits, the smallest of all."""
    fitting: dict[tuple[bool, int], Candidate] = {}
    smallest: Candidate | None = None
    for layout in options:
        level = (layout.sequence_parallel, layout.recompute_every)
        if level in fitting:
            continue
        one = assess(config, layout, cluster, mfu)
        if one.fits:
            fitting[level] = one
        elif smallest is None or one.plan.memory.total < smallest.plan.memory.total:
            smallest = one
    if fitting:
        return min(fitting.values(), key=lambda one: (one.speed.step, one.simplicity))
    assert smallest is not None
    return smallest


def _indivisible(config: RunConfig, cluster: Cluster) -> str:
    return (
        f"global_batch {config.global_batch} cannot be shared by {cluster.ranks} GPUs under any "
        f"layout of this model; choose a multiple of {cluster.ranks}, or another number of GPUs"
    )


def shortage(config: RunConfig, cluster: Cluster, smallest: Candidate) -> str:
    """Error message if nothing fits: the missing memory, and remedies."""
    needed, there = smallest.plan.memory.total / GIB, usable(cluster) / GIB
    remedies = [*_more_nodes(config, cluster), *_larger_gpus(config, cluster)]
    remedies.append("a smaller model or a shorter data.sequence_length")
    return (
        f"nothing fits {cluster.ranks} x {cluster.gpu.name}: the smallest layout needs "
        f"{needed:,.1f} GiB per GPU of {there:,.1f} usable; use " + ", or ".join(remedies)
    )


def _fits_somehow(config: RunConfig, cluster: Cluster) -> bool:
    return any(
        _best(config, options, cluster, DEFAULT_MFU).fits for options in _layouts(config, cluster)
    )


def _more_nodes(config: RunConfig, cluster: Cluster) -> Iterator[str]:
    for times in (2, 4, 8, 16, 32, 64):
        larger = replace(cluster, ranks=times * cluster.ranks)
        if _fits_somehow(config, larger):
            yield f"{larger.ranks} of these GPUs"
            return


def _larger_gpus(config: RunConfig, cluster: Cluster) -> Iterator[str]:
    for gpu in sorted(GPUS.values(), key=lambda gpu: gpu.memory):
        if gpu.memory > cluster.gpu.memory and _fits_somehow(config, replace(cluster, gpu=gpu)):
            yield f"as many {gpu.name}"
            return
