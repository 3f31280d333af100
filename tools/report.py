"""``python -m tools.report RUN``: pictures of a run, from its metrics.

plots/loss.png     training loss, smoothed, and the held-out numbers, over tokens
plots/levels.png   training loss by range of the noise level
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from configs.errors import UserError
from pretrain.metrics import Row, read_rows
from pretrain.run_directory import RunDirectory
from tools import command

LEVEL = "train/loss_level_"


def report(run: Path, unigram: float | None = None) -> list[Path]:
    """Draw the pictures of a run; returns their paths.

    Args:
        unigram: nats per token of the unigram model, drawn as a line to compare with.
    """
    rows = read_rows(RunDirectory(run).metrics)
    if not any("train/loss" in row for row in rows):
        raise UserError(f"{run} has no metrics yet; train it first with `python -m pretrain`")
    (run / "plots").mkdir(exist_ok=True)
    return [
        _loss(rows, run / "plots" / "loss.png", run.name, unigram),
        _levels(rows, run / "plots" / "levels.png", run.name),
    ]


def _loss(rows: list[Row], path: Path, name: str, unigram: float | None) -> Path:
    training = [row for row in rows if "train/loss" in row]
    tokens = np.array([row["tokens_seen"] for row in training])
    loss = np.array([row["train/loss"] for row in training])
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(tokens, loss, color="tab:blue", alpha=0.25, linewidth=1)
    window = max(1, len(loss) // 20)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    axes.plot(tokens[window - 1 :], smooth, color="tab:blue", label=f"training, mean of {window}")
    bounded = any("val/nelbo" in row for row in rows)
    key = "val/nelbo" if bounded else "val/loss"
    validation = [row for row in rows if key in row]
    if validation:
        axes.plot(
            [row["tokens_seen"] for row in validation],
            [row[key] for row in validation],
            "o-",
            color="tab:red",
            label="held-out NELBO (EMA)" if bounded else "held-out loss (EMA)",
        )
    if unigram is not None:
        axes.axhline(unigram, color="black", linestyle=":", label=f"unigram {unigram:.3f}")
    unit = "nats per token" if bounded else "loss per token"
    axes.set(xlabel="tokens seen", ylabel=unit, title=name)
    low = min(smooth.min(), *(row[key] for row in validation), *[unigram or smooth.min()])
    axes.set_ylim(low - 0.3, smooth.max() + 0.3)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _levels(rows: list[Row], path: Path, name: str) -> Path:
    """Mean loss of each range of the level, over the first and the last tenth of the rows."""
    training = [row for row in rows if "train/loss" in row]
    keys = sorted({key for row in training for key in row if key.startswith(LEVEL)})
    levels = np.array([float(key.removeprefix(LEVEL)) for key in keys])
    part = max(1, len(training) // 10)
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, chosen, shift in (
        ("first tenth", training[:part], 0.03),
        ("last tenth", training[-part:], 0.07),
    ):
        means = [np.mean([row[key] for row in chosen if key in row] or [np.nan]) for key in keys]
        axes.bar(levels + shift, means, width=0.035, label=f"{label} of the run")
    axes.set(xlabel="noise level", ylabel="loss per token", title=name, xlim=(0, 1))
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="upper center", ncol=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run directory")
    arguments = parser.parse_args(argv)

    def report_run() -> int:
        for path in report(arguments.run):
            print(path)
        return 0

    return command.run(report_run)


if __name__ == "__main__":
    sys.exit(main())
