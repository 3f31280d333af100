"""The recommendation of ``python -m tools.plan``: facts, the words of the layout, all as JSON."""

import json
from dataclasses import asdict
from typing import Any

from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner import plan
from pretrain.planner import search as recommend
from pretrain.planner.hardware import GIB, LINK_SHARE, Cluster
from pretrain.planner.search import Candidate


def facts(config: RunConfig, cluster: Cluster, mfu: float, one: Candidate) -> str:
    """The lines that hold under every layout: parameters, batch, operations, hardware."""
    gpu, numbers = cluster.gpu, one.plan
    count = cluster.ranks // cluster.ranks_per_node
    nodes = "1 node" if count == 1 else f"{count:,} nodes"
    return "\n".join(
        [
            f"parameters    {numbers.parameters:,}",
            f"batch         {config.global_batch:,} samples x {config.data.sequence_length:,} "
            f"positions = {numbers.tokens_per_step:,} tokens per step",
            f"operations    {numbers.flops_per_token:.4g} FLOPs per token: forward and backward, "
            f"bidirectional attention whole, the head at {numbers.head_share:.0%} of the positions",
            f"hardware      {cluster.ranks:,} x {gpu.name} in {nodes} of "
            f"{cluster.ranks_per_node}: {gpu.memory / GIB:,.0f} GiB, "
            f"{gpu.flops(config.precision) / 1e12:,.3g} TFLOP/s {config.precision}, "
            f"{gpu.node_rate / 1e9:,.0f} GB/s within a node, {gpu.network_rate / 1e9:,.0f} GB/s "
            "between nodes",
            f"assumed       {mfu:.0%} MFU while a GPU computes; links at {LINK_SHARE:.0%} of their "
            "rate; nothing overlaps",
        ]
    )


def recommendation(config: RunConfig, cluster: Cluster, chosen: Candidate) -> str:
    """The recommended layout as words of a command line, and the time that it takes."""
    seconds = chosen.speed.step
    whole = config.steps * seconds
    shares = ", ".join(
        f"{name} {value / seconds:.0%}"
        for name, value in vars(chosen.speed).items()
        if value >= 0.005 * seconds
    )
    return "\n".join(
        [
            f"Recommended is the simplest layout within {recommend.AS_FAST - 1:.0%} of the "
            "fastest. Add to the command line:",
            "",
            f"  {' '.join(words(chosen.plan.layout, config.parallel))}",
            "",
            f"Expect {seconds:.3g} s per step ({shares}) and {chosen.tokens_per_second:,.0f} "
            f"tokens/s: {config.steps:,} steps in {_duration(whole)}, "
            f"{whole * cluster.ranks / 3600:,.0f} GPU-hours.",
        ]
    )


def _duration(seconds: float) -> str:
    """Seconds in the largest unit of which there are two or more."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.3g} seconds"


def words(layout: ParallelConfig, configured: ParallelConfig) -> list[str]:
    """The settings that make a configuration's layout this one: all sizes, and what differs."""
    sizes = ("data", "tensor", "pipeline", "zero_stage", "micro_batch")
    off, before = asdict(ParallelConfig()), asdict(configured)
    return [
        f"parallel.{name}={json.dumps(value)}"
        for name, value in asdict(layout).items()
        if name in sizes or value != off[name] or value != before[name]
    ]


def as_json(
    config: RunConfig,
    cluster: Cluster,
    mfu: float,
    ordered: list[Candidate],
    chosen: Candidate | None,
) -> dict[str, Any]:
    """All numbers, for ``--json``."""
    return {
        "cluster": asdict(cluster),
        "mfu": mfu,
        "parameters": ordered[0].plan.parameters,
        "tokens_per_step": ordered[0].plan.tokens_per_step,
        "flops_per_token": ordered[0].plan.flops_per_token,
        "recommended": _candidate_json(chosen) if chosen else None,
        "words": words(chosen.plan.layout, config.parallel) if chosen else None,
        "problem": None if chosen else recommend.shortage(config, cluster, ordered[0]),
        "layouts": [_candidate_json(one) for one in ordered],
    }


def _candidate_json(one: Candidate) -> dict[str, Any]:
    return {
        "fits": one.fits,
        "tokens_per_s": one.tokens_per_second,
        "seconds": {**vars(one.speed), "step": one.speed.step},
        **plan.to_plain(one.plan),
    }
