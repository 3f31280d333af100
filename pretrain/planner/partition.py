"""Partition the layers into contiguous pipeline stages that minimize the largest stage cost.

A pipeline is as slow as its slowest stage, so the largest sum of costs is minimized (the linear
partition problem; by bisection over the bound and a greedy fill).
"""

from collections.abc import Sequence

from model.networks.config import ModelConfig

ACTIVE_SHARE = 0.5
"""Share of the positions at which the head is assumed to run when layers are split into stages."""


def layer_costs(config: ModelConfig, length: int) -> list[float]:
    """FLOPs per position of each layer: first, blocks, last."""
    return config.layer_flops(length, ACTIVE_SHARE)


def balanced(costs: Sequence[float], parts: int) -> list[int]:
    """Bounds ``[parts + 1]`` of contiguous, non-empty parts that minimize the largest sum.

    Part p holds the items from ``bounds[p]`` to ``bounds[p + 1]``, exclusive.

    Raises:
        ValueError: if there are fewer items than parts.
    """
    if not 1 <= parts <= len(costs):
        raise ValueError(f"{len(costs)} layers cannot be cut into {parts} stages")
    low, high = max(costs), float(sum(costs))
    for _ in range(60):
        middle = (low + high) / 2
        if _greedy(costs, parts, middle) is None:
            low = middle
        else:
            high = middle
    bounds = _greedy(costs, parts, high * (1 + 1e-12))
    assert bounds is not None
    return bounds


def _greedy(costs: Sequence[float], parts: int, bound: float) -> list[int] | None:
    """Fill each part up to ``bound``, leaving at least one item for every later part; or None."""
    bounds, total = [0], 0.0
    for index, cost in enumerate(costs):
        parts_left = parts - len(bounds)
        must_close = len(costs) - index <= parts_left and index > bounds[-1]
        if index > bounds[-1] and (must_close or total + cost > bound):
            if parts_left == 0:
                return None
            bounds.append(index)
            total = 0.0
        total += cost
        if total > bound:
            return None
    assert len(bounds) == parts
    return [*bounds, len(costs)]


def span_of(model: ModelConfig, length: int, stages: int, stage: int) -> range:
    """The layers of one pipeline stage."""
    bounds = balanced(layer_costs(model, length), stages)
    return range(bounds[stage], bounds[stage + 1])
