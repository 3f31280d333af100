"""``python -m tools.pictures.architecture``: the architecture as a picture, for the README.

Three panels: which package imports which, what one training step does from shards to checkpoint,
and how ranks stand on the mesh of data, tensor and pipeline axes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from configs.errors import exit_code
from tools import command

FILE = Path("tools/pictures/architecture.png")

IMPORTS: dict[str, tuple[str, ...]] = {
    "configs": (),
    "model": ("configs",),
    "data_pipeline": ("configs",),
    "pretrain": ("configs", "model", "data_pipeline"),
    "tools": ("configs", "model", "data_pipeline", "pretrain"),
    "slurm": ("configs",),
}
"""Which package imports which; a test compares it with the sources."""

COLORS = {
    "configs": "#e8e8e8",
    "model": "#cfe3f7",
    "data_pipeline": "#d5efd5",
    "pretrain": "#fbe3c3",
    "tools": "#eadcf5",
    "slurm": "#f8d5d5",
}

PACKAGES = {
    "tools": (50, 86, "sample, evaluate, convert,\nplan, verify, bench"),
    "pretrain": (50, 60, "trainer, checkpoints, planner;\nparallel/: the engines"),
    "model": (24, 36, "networks, objectives,\nsamplers, schedules"),
    "data_pipeline": (76, 36, "tokenizers, shards,\npacking, stream"),
    "configs": (50, 9, "YAML files and key=value\nwords to a dataclass"),
    "slurm": (17, 86, "submit, supervise,\nrequeue"),
}
"""Centre of each package's box, and what is in it."""

STEP = (
    ("data_pipeline", "shards", ".bin/.idx, manifest"),
    ("data_pipeline", "stream", "sample k is a\nfunction of k"),
    ("model", "objective.corrupt", "noise keyed by\nstream position"),
    ("pretrain", "all-reduce counts", "one sum over ranks,\nbefore the first pass"),
    ("model", "network, in stages", "list of layers, cut\nby T and P"),
    ("model", "objective.losses", "sums, divided by\nglobal counts"),
    ("pretrain", "backward", "gradients summed\nover D"),
    ("pretrain", "AdamW, EMA", "fp32 masters,\nsharded by ZeRO"),
    ("pretrain", "checkpoint", "a file per rank, then\none rename"),
)
"""The way of a step, by the package that each part is in."""


def draw(path: Path) -> None:
    """Draw the three panels and write them as a PNG."""
    figure = plt.figure(figsize=(12.5, 8.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.5, 1), width_ratios=(1, 1))
    _draw_packages(_panel(figure.add_subplot(grid[0, 0]), "Packages: an arrow means imports"))
    _draw_mesh(_panel(figure.add_subplot(grid[0, 1]), "Mesh of ranks: D 2 x T 2 x P 2"))
    _draw_step(_panel(figure.add_subplot(grid[1, :]), "One training step"))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, title: str) -> Axes:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.axis("off")
    return axes


def _box(
    axes: Axes, at: tuple[float, float], size: tuple[float, float], color: str, head: str, text: str
) -> None:
    """A rounded box around its centre ``at``, in the panel's units, with a heading and a text."""
    (x, y), (width, height) = at, size
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=1.5",
        facecolor=color,
        edgecolor="#444444",
        zorder=2,
    )
    axes.add_patch(patch)
    axes.text(x, y + height / 4, head, ha="center", va="center", fontweight="bold", zorder=3)
    axes.text(x, y - height / 6, text, ha="center", va="center", fontsize=8.5, zorder=3)


def _draw_packages(axes: Axes) -> None:
    for name, (x, y, text) in PACKAGES.items():
        _box(axes, (x, y), BOX, COLORS[name], name, text)
    for name, imported in IMPORTS.items():
        for other in imported:
            _arrow(axes, *ENDS[name, other])


BOX = (30.0, 14.0)
"""Width and height of a package's box."""

ENDS: dict[tuple[str, str], tuple[tuple[float, float], tuple[float, float]]] = {
    ("model", "configs"): ((20, 29), (40, 16)),
    ("data_pipeline", "configs"): ((80, 29), (60, 16)),
    ("pretrain", "configs"): ((50, 53), (50, 16)),
    ("pretrain", "model"): ((42, 53), (27, 43)),
    ("pretrain", "data_pipeline"): ((58, 53), (73, 43)),
    ("tools", "pretrain"): ((50, 79), (50, 67)),
    ("tools", "model"): ((36, 79), (20, 43)),
    ("tools", "data_pipeline"): ((64, 79), (91, 43)),
    ("tools", "configs"): ((65, 86), (65, 9)),
    ("slurm", "configs"): ((4, 79), (35, 9)),
}
"""Where the arrow from a package to one that it imports begins and ends."""

ELBOWS: dict[tuple[tuple[float, float], tuple[float, float]], float] = {
    ((65, 86), (65, 9)): 99.0,
    ((4, 79), (35, 9)): 4.0,
}
"""Arrows that run around the boxes: the column on which they do."""


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A straight arrow, or one with two corners."""
    column = ELBOWS.get((start, end))
    style = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 0, "shrinkB": 0}
    if column is None:
        axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)
        return
    axes.plot([start[0], column, column], [start[1], start[1], end[1]], color="#555555", lw=1)
    axes.annotate("", xy=end, xytext=(column, end[1]), arrowprops=style, zorder=1)


def _draw_mesh(axes: Axes) -> None:
    """Two pipeline stages, each a square of data x tensor ranks, with the axes named."""
    for stage in range(2):
        left = 12 + 45 * stage
        layers = "embedding, blocks 1-6" if stage == 0 else "blocks 7-12, head, loss"
        _box(axes, (left + 18, 47), (41, 60), "#fdf3e4", "", "")
        axes.text(left + 18, 72, f"stage {stage}: {layers}", ha="center", fontsize=9)
        for data in range(2):
            for tensor in range(2):
                rank = tensor + 2 * data + 4 * stage
                at = (left + 9 + 18 * tensor, 58 - 23 * data)
                _box(axes, at, (15, 17), COLORS["pretrain"], f"rank {rank}", f"d{data} t{tensor}")
        axes.text(left + 18, 20, "T: each matrix cut in two", ha="center", fontsize=8.5)
        axes.annotate("", xy=(left + 33, 24), xytext=(left + 3, 24), arrowprops=AXIS)
    axes.annotate("", xy=(5, 30), xytext=(5, 66), arrowprops=AXIS)
    axes.text(2, 48, "D: the batch cut in two", rotation=90, ha="center", va="center", fontsize=8.5)
    axes.annotate("", xy=(90, 82), xytext=(16, 82), arrowprops=AXIS)
    axes.text(52, 86, "P: the list of layers cut into stages", ha="center", fontsize=8.5)
    text = (
        "rank = t + T (d + D p). ZeRO shards optimizer state, gradients or weights over D.\n"
        "Noise is keyed by stream position: any D x T x P gives the same curve."
    )
    axes.text(50, 4, text, ha="center", va="center", fontsize=9, style="italic", color="#555555")


AXIS = {"arrowstyle": "-|>", "color": "#b05a00", "lw": 1.6}


def _draw_step(axes: Axes) -> None:
    """The parts of a step in two rows, each in the colour of its package."""
    columns = 5
    for number, (package, head, text) in enumerate(STEP):
        row, column = divmod(number, columns)
        _box(axes, _place(row, column), (16, 30), COLORS[package], head, text)
        if column:
            _between(axes, _place(row, column - 1), _place(row, column))
    (x, y), (x2, y2) = _place(0, columns - 1), _place(1, 0)
    middle = (y + y2) / 2
    axes.plot([x, x, x2], [y - 15, middle, middle], color="#555555", lw=1, zorder=1)
    axes.annotate("", xy=(x2, y2 + 15), xytext=(x2, middle), arrowprops=PLAIN)
    axes.text(50, 5, "The colour of a box is that of its package.", ha="center", fontsize=8.5,
              style="italic", color="#555555")  # fmt: skip


PLAIN = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 0, "shrinkB": 0}


def _place(row: int, column: int) -> tuple[float, float]:
    """Centre of a box of the step."""
    return 10 + 20 * column, 79 - 46 * row


def _between(axes: Axes, left: tuple[float, float], right: tuple[float, float]) -> None:
    axes.annotate("", xy=(right[0] - 8, right[1]), xytext=(left[0] + 8, left[1]), arrowprops=PLAIN)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture; returns the exit status."""
    parser = command.parser("pictures.architecture", __doc__)
    parser.add_argument(
        "--out", type=Path, default=FILE, metavar="FILE", help=f"a PNG (default: {FILE})"
    )
    arguments = parser.parse_args(argv)
    command.check_output("--out", arguments.out)
    return exit_code(lambda: _drawn(arguments.out))


def _drawn(path: Path) -> int:
    draw(path)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
