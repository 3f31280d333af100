"""The curves of a run by its metrics, and their smoothing."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.load import read_yaml
from configs.run_files import SCORES
from pretrain.run.directory import RunDirectory
from pretrain.run.metrics import Row, number, read_rows

LEVEL = "train/loss_level_"
SHARE = 20
"""A line is smoothed over one in this many of its rows."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's rows and configuration.

    Args:
        name: what it is called in a picture.
        config: as it stands in the run directory, plain.
    """

    path: Path
    name: str
    config: dict[str, object]
    rows: list[Row]

    @cached_property
    def training(self) -> list[Row]:
        """The rows of training steps."""
        return [row for row in self.rows if number(row.get("train/loss")) is not None]

    @cached_property
    def held_out(self) -> str | None:
        """The key of the held-out number: the bound, or the loss where there is none."""
        return next((key for key in SCORES if len(self.curve(key)[1])), None)

    @property
    def averaged(self) -> bool:
        """Whether averaged weights are validated."""
        ema = self.config.get("ema")
        return not isinstance(ema, dict) or bool(ema.get("decay", True))

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and values of a metric, where it is a finite number."""
        pairs = ((number(row.get("tokens_seen")), number(row.get(key))) for row in self.rows)
        found = [pair for pair in pairs if None not in pair]
        tokens, values = np.array(found, dtype=float).reshape(-1, 2).T
        return tokens, values


def by_level(rows: list[Row]) -> tuple[np.ndarray, list[float]]:
    """The middle of each range of the noise level, and the mean loss of these rows there."""
    means: dict[float, float] = {}
    for key in {key for row in rows for key in row}:
        start = _level(key)
        values = [value for row in rows if (value := number(row.get(key))) is not None]
        if start is not None and values:
            means[start] = float(np.mean(values))
    starts = np.array(sorted(means))
    width = 0.1 if len(starts) < 2 else float(np.diff(starts).min())
    return starts + width / 2, [means[start] for start in starts]


def _level(key: str) -> float | None:
    """The lower end of the range of noise levels of a metric; None for other metrics."""
    try:
        start = float(key.removeprefix(LEVEL)) if key.startswith(LEVEL) else -1.0
    except ValueError:
        return None
    return start if 0 <= start < 1 else None


def read_runs(paths: list[Path]) -> list[Run]:
    """The runs, named by their directories, or by their paths where two have one name.

    Raises:
        UserError: one of them has no metrics.
    """
    names = [path.resolve().name for path in paths]
    runs = []
    for path, name in zip(paths, names, strict=True):
        directory = RunDirectory(path)
        rows = read_rows(directory.metrics)
        if not rows:
            raise UserError(f"{path} has no metrics yet; train it first with `python -m pretrain`")
        config = read_yaml(directory.config) if directory.config.exists() else {}
        label = str(path) if names.count(name) > 1 else name
        runs.append(Run(path=path, name=label, config=config, rows=rows))
        if not runs[-1].training:
            raise UserError(f"{path}: none of its {len(rows):,} rows has a finite training loss")
    return runs


def smooth(values: np.ndarray) -> np.ndarray:
    """Each value's median with its neighbours, then the mean of these medians.

    The median passes over a lone spike, which a mean would turn into a plateau; the mean takes
    the steps off it. Towards both ends there are fewer neighbours, and neither end is left out:
    the first and the last stand where the line beside them leads, unless they lie on its way.
    """
    half, places = len(values) // (2 * SHARE), np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, places[::-1]))
    if not half:
        return values
    medians = np.array([np.median(values[i - r : i + r + 1]) for i, r in enumerate(reach)])
    for end, beside, next_one in ((0, 1, 2), (-1, -2, -3)):
        ahead = 2 * medians[beside] - medians[next_one]
        medians[end] = np.median([values[end], medians[beside], ahead])
    return np.array([np.mean(medians[i - r : i + r + 1]) for i, r in enumerate(reach)])


def differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """The keys in which configurations differ, with the value of each run."""
    flat = [dict(_leaves(run.config)) for run in runs]
    names = dict.fromkeys(name for leaves in flat for name in leaves if name != "run_dir")
    table = [(name, [str(leaves.get(name, "-")) for leaves in flat]) for name in names]
    return [(name, values) for name, values in table if len(set(values)) > 1]


def _leaves(block: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in block.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
