"""The layouts whose runs are compared, by ``python -m tools.verify`` and by the tests."""

from dataclasses import dataclass, field
from typing import Any

ALL_CUT = {"zero_stage": 3, "param_persistence_threshold": 0}
"""ZeRO 3 with even the smallest parameters cut."""

SEQUENCE = {"tensor": 2, "sequence_parallel": True}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layout; what the ranks leave over is data parallel.

    Args:
        everywhere: whether each objective is run on it; the others prove the engine, and take
            one objective for all.
        tests_only: a variant of another one, to which ``python -m tools.verify`` gives no time.
    """

    name: str
    ranks: int
    parallel: dict[str, Any] = field(default_factory=dict)
    everywhere: bool = False
    tests_only: bool = False


def _case(name: str, ranks: int, **parallel: Any) -> Case:
    return Case(name=name, ranks=ranks, parallel=parallel)


def _everywhere(name: str, ranks: int, **parallel: Any) -> Case:
    return Case(name=name, ranks=ranks, parallel=parallel, everywhere=True)


def _variant(name: str, ranks: int, **parallel: Any) -> Case:
    return Case(name=name, ranks=ranks, parallel=parallel, tests_only=True)


ONE = _everywhere("1 rank", 1)
PIPELINE = _everywhere("pipeline 2", 2, pipeline=2)
CASES = (
    ONE,
    _everywhere("4 micro-batches", 1, micro_batch=4),
    _case("recompute", 1, recompute_every=1),
    _variant("recompute every second block", 1, recompute_every=2),
    _case("data 2", 2),
    _everywhere("tensor 2", 2, tensor=2),
    _everywhere("tensor 2, sequence parallel", 2, **SEQUENCE),
    _variant("tensor 2, sequence parallel, recompute", 2, recompute_every=1, **SEQUENCE),
    PIPELINE,
    _variant("pipeline 2, recompute", 2, pipeline=2, recompute_every=1, micro_batch=4),
    _case("data 2, ZeRO 2", 2, zero_stage=2, micro_batch=2),
    _everywhere("data 2, ZeRO 3", 2, **ALL_CUT),
    _variant("data 2, ZeRO 3, small parameters kept", 2, zero_stage=3),
    _case("data 4", 4),
    _case("data 2 x tensor 2", 4, tensor=2),
    _case("data 2 x tensor 2, ZeRO 3", 4, tensor=2, **ALL_CUT),
    _variant("data 2 x tensor 2, ZeRO 3, small parameters kept", 4, tensor=2, zero_stage=3),
    _case("data 2 x pipeline 2", 4, pipeline=2),
    _everywhere("tensor 2 x pipeline 2", 4, tensor=2, pipeline=2, micro_batch=4),
    _variant("tensor 2 x pipeline 2, sequence parallel", 4, pipeline=2, micro_batch=4, **SEQUENCE),
    _variant("tensor 4", 4, tensor=4),
    _variant("pipeline 4", 4, pipeline=4, micro_batch=4),
    _case("data 8", 8),
    _case("data 2 x tensor 2 x pipeline 2", 8, tensor=2, pipeline=2),
)
MOST_RANKS = max(case.ranks for case in CASES)
