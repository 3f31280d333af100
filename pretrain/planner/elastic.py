"""Elastic layouts: adapt a run's parallel layout to another number of ranks.

The global batch, and with it the training curve, stays the same. The data-parallel size is changed
first, then the micro-batch; the tensor- and pipeline-parallel sizes only if they do not divide
the ranks, and then to the largest that do, since smaller ones need more memory per rank.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from configs.errors import UserError
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.parallel.misfits import misfits
from pretrain.planner.plan import plan


def report(config: RunConfig, ranks: int) -> dict[str, Any]:
    """Machine-readable report on running a configuration on ``ranks`` ranks.

    Returns:
        ``problem``: why the run's own layout does not fit, or None; ``layout``: the
        ``parallel`` block to use, its own if it fits, or None if no layout does.
    """
    problem = None
    try:
        plan(config, ranks)
        layout: ParallelConfig | None = config.parallel
    except UserError as error:
        problem = str(error)
        layout = next(_fitting(config, ranks), None)
    return {"problem": problem, "layout": asdict(layout) if layout else None}


def _fitting(config: RunConfig, ranks: int) -> Iterator[ParallelConfig]:
    """Layouts that fit, those closest to the run's own first."""
    own = config.parallel
    for tensor in _divisors(own.tensor, ranks):
        for pipeline in range(min(own.pipeline, ranks // tensor), 0, -1):
            if ranks // tensor % pipeline:
                continue
            for micro_batch in dict.fromkeys((own.micro_batch, None)):
                layout = replace(
                    own,
                    data=None,
                    tensor=tensor,
                    pipeline=pipeline,
                    micro_batch=micro_batch,
                    sequence_parallel=own.sequence_parallel and tensor > 1,
                )
                if _fits(config, layout, ranks):
                    yield layout


def _divisors(size: int, ranks: int) -> list[int]:
    """Common divisors of ``size`` and ``ranks``, largest first."""
    return [n for n in range(min(size, ranks), 0, -1) if size % n == ranks % n == 0]


def _fits(config: RunConfig, layout: ParallelConfig, ranks: int) -> bool:
    if misfits(config.model, config.data.sequence_length, layout):
        return False
    try:
        plan(replace(config, parallel=layout), ranks)
    except UserError:
        return False
    return True
