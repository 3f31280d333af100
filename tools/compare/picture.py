"""The picture of a comparison: loss over tokens, and held-out numbers with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from configs.hints import plain
from tools.compare.table import Result, by_name
from tools.report.curves import read_runs
from tools.report.plots import colors, finish, loss_curves

SIZE = (11, 4.2)
"""Inches."""


def draw(results: Sequence[Result], baselines: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the picture: curves of every seed at the left, one row a run at the right."""
    runs = read_runs([Path(one.directory) for one in results])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=SIZE, layout="constrained", width_ratios=(3, 2)
    )
    loss_curves(left, runs)
    left.set_title("training loss, and validation while training (points)")
    _intervals(right, results, baselines)
    return finish(figure, [left, right], path, legend=len(runs) > 1)


def _intervals(
    axes: Axes, results: Sequence[Result], baselines: Sequence[Mapping[str, Any]]
) -> None:
    color = dict(zip((one.directory for one in results), colors(results), strict=True))
    names: list[str] = []
    for own in by_name(results):
        for one in own:
            if one.held_out.get("nelbo") is not None:
                _point(axes, one.held_out, len(names), color[one.directory])
        names.append(own[0].name)
    for row in baselines:
        _point(axes, row, len(names), "black")
        names.append(row["name"])
    axes.set_yticks(range(len(names)), [plain(name).replace("$", r"\$") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set(xlabel="nats per token, 95% interval", title="held-out text (open: upper bound)")


def _point(axes: Axes, numbers: Mapping[str, Any], place: int, color: Any) -> None:
    value, ends = numbers["nelbo"], numbers.get("nelbo_ci95")
    filled = color if numbers["exact"] else "none"
    reach = [[value - ends[0]], [ends[1] - value]] if ends else None
    axes.errorbar(
        [value], [place], xerr=reach, fmt="o", color=color, markerfacecolor=filled, capsize=4
    )
    axes.annotate(
        f"{value:.3f}", (value, place), (0, 8), textcoords="offset points", ha="center",
        fontsize="small",
    )  # fmt: skip
