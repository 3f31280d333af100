"""Plots of runs over each other: loss, loss by noise level, gradient norm, rate and speed."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from configs.run_files import SCORES

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from configs.hints import plain
from tools.report.curves import Run, by_level, smooth

Size = tuple[float, float]
SIZE: Size = (7, 4.2)
"""Inches."""

TOKENS = EngFormatter(sep="")
"""250k, 1.5M, 2G."""

MOST_VECTORS = 1000
"""Most points that are drawn one by one in a picture of vectors."""

MOST_INSIDE = 8
"""Most entries of a legend inside a plot; a longer one stands beside it."""


def draw_loss(
    runs: list[Run], path: Path, unigram: float | None = None, *, size: Size = SIZE
) -> Path:
    """Training loss, every point and a smoothed line, and the held-out numbers, over tokens."""
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    loss_curves(axes, runs, unigram)
    return finish(figure, [axes], path)


def loss_curves(axes: Axes, runs: list[Run], unigram: float | None = None) -> None:
    """The same, as a panel of a picture."""
    tops, lows = [], []
    for run, color in zip(runs, colors(runs), strict=True):
        tokens, loss = run.curve("train/loss")
        if not len(loss):
            continue
        line = smooth(loss)
        _points(axes, tokens, loss, color)
        label = "training, smoothed by a median" if len(runs) == 1 else _text(run)
        axes.plot(tokens, line, _style(line), color=color, label=label)
        tops += [line.max(), np.quantile(loss, 0.995)]
        lows += [line.min(), np.quantile(loss, 0.005)]
        if run.held_out:
            seen, values = run.curve(run.held_out)
            weights = "averaged weights" if run.averaged else "raw weights"
            kind = "NELBO" if run.held_out == SCORES[0] else "loss"
            label = f"held-out {kind} ({weights})" if len(runs) == 1 else "_"
            held = "tab:red" if len(runs) == 1 else color
            axes.plot(seen, values, "o-", color=held, markeredgecolor="black", label=label)
            tops, lows = [*tops, *values], [*lows, *values]
    if unigram is not None:
        axes.axhline(unigram, color="black", linestyle=":", label=f"unigram {unigram:.3f}")
        tops, lows = [*tops, unigram], [*lows, unigram]
    _fit(axes, lows, tops)
    _mark_what_is_above(axes, runs)
    bounded = any(run.held_out == SCORES[0] for run in runs)
    unit = "nats per token" if bounded else "loss per token"
    title = _text(runs[0]) if len(runs) == 1 else "training loss, and held-out numbers (points)"
    axes.set(xlabel="tokens seen", ylabel=unit, title=title)
    axes.xaxis.set_major_formatter(TOKENS)


def draw_levels(runs: list[Run], path: Path, *, size: Size = SIZE) -> Path:
    """Mean loss of each range of the noise level, over the first and last tenth of the rows."""
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for run, color in zip(runs, colors(runs), strict=True):
        rows, part = run.training, max(1, len(run.training) // 10)
        for which, chosen, style in (("first", rows[:part], ":"), ("last", rows[-part:], "-")):
            if which == "first" and len(rows) == 1:
                continue
            centres, means = by_level(chosen)
            label = f"{which} tenth of the run"
            if len(runs) > 1:
                label = _text(run) if which == "last" else "_"
            axes.plot(centres, means, f"o{style}", color=color, label=label, markersize=5)
    title = (
        _text(runs[0]) if len(runs) == 1 else "loss by noise level, first (dotted) and last tenth"
    )
    axes.set(xlabel="noise level", ylabel="loss per token", title=title, xlim=(0, 1))
    axes.set_xticks(np.linspace(0, 1, 11))
    return finish(figure, [axes], path)


def draw_training(runs: list[Run], path: Path, *, size: Size = (7, 7.5)) -> Path:
    """Gradient norm, learning rate and tokens per second over tokens."""
    figure, panels = plt.subplots(3, 1, figsize=size, layout="constrained", sharex=True)
    for axes, key, unit in zip(
        panels,
        ("train/grad_norm", "train/lr", "perf/tokens_per_second"),
        ("gradient norm", "learning rate", "tokens per second"),
        strict=True,
    ):
        for run, color in zip(runs, colors(runs), strict=True):
            tokens, values = run.curve(key)
            if key == "train/grad_norm":
                tokens, values = tokens[values > 0], values[values > 0]
            if not len(values):
                continue
            noisy = key != "train/lr"
            line = smooth(values) if noisy else values
            if noisy:
                _points(axes, tokens, values, color)
            axes.plot(tokens, line, _style(line), color=color, label=_text(run))
        axes.set_ylabel(unit)
        if key != "train/grad_norm":
            axes.set_ylim(bottom=0)
        elif axes.has_data():
            axes.set_yscale("log")
    panels[0].set_title(_text(runs[0]) if len(runs) == 1 else "how training goes")
    panels[-1].set_xlabel("tokens seen")
    panels[-1].xaxis.set_major_formatter(TOKENS)
    return finish(figure, list(panels), path, legend=len(runs) > 1)


def _points(axes: Axes, tokens: np.ndarray, values: np.ndarray, color: Any) -> None:
    """Every point; many of them are one image in a picture of vectors."""
    look: dict[str, Any] = {"alpha": 0.4, "markersize": 4, "markeredgewidth": 0}
    axes.plot(tokens, values, ".", color=color, rasterized=len(values) > MOST_VECTORS, **look)


def _text(run: Run) -> str:
    """A run's name, of which nothing is taken for mathematics or for a mark of matplotlib's."""
    name = plain(run.name).replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def colors(runs: Sequence[object]) -> list[Any]:
    """A colour for each run, no two the same."""
    if len(runs) <= 10:
        return [f"C{number}" for number in range(len(runs))]
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(runs))))


def _style(line: np.ndarray) -> str:
    """A line of one point is drawn as a point."""
    return "-" if len(line) > 1 else "o"


def _fit(axes: Axes, lows: list[float], tops: list[float]) -> None:
    if not tops:
        return
    low, high = float(np.min(lows)), float(np.max(tops))
    margin = 0.05 * (high - low) or 0.02 * abs(high) or 0.1
    axes.set_ylim(low - margin, high + margin)


def _mark_what_is_above(axes: Axes, runs: list[Run]) -> None:
    """Spikes that would flatten all else stand at the upper edge, with their height."""
    top = axes.get_ylim()[1]
    for run, color in zip(runs, colors(runs), strict=True):
        tokens, loss = run.curve("train/loss")
        above = loss > top
        if not above.any():
            continue
        edge = np.full(int(above.sum()), top)
        label = f"{len(edge)} higher, up to {loss.max():.3g}"
        axes.plot(tokens[above], edge, "^", color=color, clip_on=False, markersize=6, label=label)


def finish(figure: Figure, panels: list[Axes], path: Path, *, legend: bool = True) -> Path:
    """Add grids and the legend of the first panel, and write the picture."""
    for axes in panels:
        axes.grid(alpha=0.3)
    entries = len(panels[0].get_legend_handles_labels()[1])
    if legend and 0 < entries <= MOST_INSIDE:
        panels[0].legend(fontsize="small")
    elif legend and entries:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + 2, max(height, 0.2 * entries + 1))
        figure.legend(
            *panels[0].get_legend_handles_labels(), fontsize="small", loc="outside right upper"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of a run's name
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
