"""Layouts as a table for a reader: memory, traffic and speed of each, in one line."""

from collections.abc import Sequence

from pretrain.planner.hardware import GIB, Cluster
from pretrain.planner.search import USABLE, Candidate
from tools.text_table import aligned, column_widths

UNITS = {"GiB": GIB, "MiB": 2**20}
HEADS = (
    *("D", "T", "P", "ZeRO", "with", "micro-batches", "bubble"),
    *("weights", "grads", "optimizer", "EMA", "activations", "buffers", "total"),
    *("tensor", "pipeline", "data", "tokens/s", "MFU"),
)

ROWS = 10
"""Layouts shown where not all are asked for."""

LEGEND = f"""\
D x T x P ranks: data, tensor, pipeline. SP: parallel.sequence_parallel. R1, R2: every, or every
second, block recomputed (parallel.recompute_every). Memory is that of the fullest stage and may
fill {USABLE:.0%} of a GPU; "data" is gradients and weights; MFU is of the whole step, waiting
included. Bytes of parameters and optimizer are exact, activations and times are estimates."""


def table(
    ordered: list[Candidate],
    chosen: Candidate | None,
    own: Candidate | None,
    cluster: Cluster,
    *,
    everything: bool,
) -> str:
    """The first of the layouts, or all, with what the columns mean.

    Args:
        chosen: the recommended one. own: that of the configuration. Both are always shown.
    """
    shown = ordered if everything else ordered[:ROWS]
    for one in (chosen, own):
        if one is not None and all(one.plan.layout != other.plan.layout for other in shown):
            shown = [*shown, one]
    rest = [one for one in ordered if all(one is not other for other in shown)]
    fitting = sum(one.fits for one in rest)
    left_out = f"Not shown: {fitting} that fit, {len(rest) - fitting} that do not (--all).\n"
    return f"{_grid(shown, chosen, own, cluster)}\n{left_out if rest else ''}{LEGEND}"


def _grid(
    shown: Sequence[Candidate], chosen: Candidate | None, own: Candidate | None, cluster: Cluster
) -> str:
    """One line for each layout, in columns under two lines of headings."""
    peak = cluster.ranks * cluster.gpu.flops(shown[0].plan.precision)
    memory_unit = _unit(max(one.plan.memory.total for one in shown))
    traffic_unit = _unit(max(one.plan.traffic.total for one in shown))
    cells = [_cells(one, peak, UNITS[memory_unit], UNITS[traffic_unit]) for one in shown]
    rows = [HEADS, *cells]
    widths, lines = column_widths(rows), aligned(rows, right=range(len(HEADS)))
    memory, traffic = (sum(width + 2 for width in widths[:n]) for n in (7, 14))
    groups = f"{'':{memory}}{f'memory per GPU, {memory_unit}':{traffic - memory}}"
    marks = ["", *(_mark(one, chosen, own) for one in shown)]
    return "\n".join(
        [
            f"{groups}sent per GPU and step, {traffic_unit}",
            *(f"{line}  {mark}".rstrip() for line, mark in zip(lines, marks, strict=True)),
        ]
    )


def _mark(one: Candidate, chosen: Candidate | None, own: Candidate | None) -> str:
    marks = {
        "does not fit": not one.fits,
        "recommended": chosen is not None and one.plan.layout == chosen.plan.layout,
        "yours": own is not None and one.plan.layout == own.plan.layout,
    }
    return ", ".join(word for word, holds in marks.items() if holds)


def _unit(largest: float) -> str:
    return "GiB" if largest >= 10 * GIB else "MiB"


def _cells(one: Candidate, peak: float, memory_unit: int, traffic_unit: int) -> list[str]:
    """One layout, in the order of ``HEADS``."""
    numbers, layout = one.plan, one.plan.layout
    extras = ["SP"] if layout.sequence_parallel else []
    if layout.recompute_every:
        extras.append(f"R{layout.recompute_every}")
    memory, moved = numbers.memory, numbers.traffic
    return [
        *(str(size) for size in (numbers.data, layout.tensor, layout.pipeline, layout.zero_stage)),
        " ".join(extras) or "-",
        f"{numbers.accumulation} x {numbers.micro_batch}",
        f"{numbers.bubble:.1%}",
        *(_number(value / memory_unit) for value in (*vars(memory).values(), memory.total)),
        _number((moved.tensor + moved.vocabulary) / traffic_unit),
        _number(moved.pipeline / traffic_unit),
        _number((moved.gradients + moved.weights) / traffic_unit),
        f"{one.tokens_per_second:,.0f}",
        f"{numbers.flops_per_token * one.tokens_per_second / peak:.1%}",
    ]


def _number(size: float) -> str:
    return "0" if size == 0 else f"{size:,.1f}" if size < 100 else f"{size:,.0f}"
