"""The configuration of a comparison: what YAML files and ``key=value`` words set."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.checks import Checked, at_least, at_most

MOST = 2**31
"""Upper bound on what is counted: a larger number is a slip."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of runs are names of directories."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Checked):
    """How every run is scored on held-out text.

    Args:
        split: of the corpus, the one that is scored.
        samples: corruptions of each window; 1 where the likelihood is exact.
        estimator: of the bound, for objectives that have it; by default the objective's own.
        batch: windows or texts per forward pass.
        weights: averaged over training (ema), or as they were last (raw).
        seed: of corruptions, samples and the resamples of intervals.
    """

    split: str = "valid"
    samples: int = 4
    estimator: str | None = None
    batch: int = 32
    weights: Literal["ema", "raw"] = "ema"
    seed: int = 0

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "samples", "batch")
        yield from at_most(self, MOST, "samples", "batch")
        yield from at_least(self, 0, "seed")


@dataclass(frozen=True, kw_only=True)
class SamplesConfig(Checked):
    """Texts that every run writes, judged by 5-grams of the training split.

    Args:
        num: texts to draw.
        length: positions, BOS and EOS included; by default as trained.
        steps: a row for each of these numbers of steps, where the sampler has steps; by default
            its own number.
        samplers: by the name of a run: its sampler and settings, as in
            ``{a: {temperature: 0.9}}``; by default the objective's own.
    """

    num: int = 64
    length: int | None = None
    steps: tuple[int, ...] = ()
    samplers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "num", "length")
        yield from at_most(self, MOST, "num", "length")
        if any(number < 1 for number in self.steps):
            yield f"steps must be at least 1, not {min(self.steps)}"
        if len(set(self.steps)) < len(self.steps):
            yield f"steps must differ, not {list(self.steps)}"


@dataclass(frozen=True, kw_only=True)
class BaselinesConfig(Checked):
    """Models that are counted and not trained, on the same held-out tokens.

    Args:
        unigram: frequencies of the training split, each count raised by one.
        kneser_ney: the longest n-grams of interpolated Kneser-Ney with three discounts; none
            leaves it out.
    """

    unigram: bool = True
    kneser_ney: int | None = 5

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "kneser_ney")
        yield from at_most(self, 20, "kneser_ney")


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Checked):
    """A comparison: runs on one corpus, of equal tokens and seeds, evaluated alike.

    Args:
        corpus: a corpus directory made by ``python -m data_pipeline``, or ``demo``.
        prepare: the commands that make the corpus, shown where it is missing and in the table.
        base: settings of all runs, nested as in a file of ``python -m pretrain``; its key
            ``config`` names such a file, over which the others are merged.
        runs: by name, what a run has of its own, over ``base``: settings, and ``config`` likewise.
        seeds: every run is trained once with each; ``seed`` of the runs.
        out: directory of runs and results; by default runs/compare/NAME of the last file.
        samples: none draws no texts.
    """

    corpus: str
    prepare: tuple[str, ...] = ()
    base: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]]
    seeds: tuple[int, ...] = (0,)
    out: str | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    samples: SamplesConfig | None = None
    baselines: BaselinesConfig = BaselinesConfig()

    def _check_runs(self) -> Iterator[str]:
        if not self.runs:
            yield "runs must name at least one run"
        for name in self.runs:
            if not _NAME.fullmatch(name):
                yield f"runs: '{name}' is no name: use letters, digits, _, - and ."

    def _check_own_keys(self) -> Iterator[str]:
        blocks = {"base": self.base, **{f"runs.{name}": own for name, own in self.runs.items()}}
        for where, block in blocks.items():
            for key, instead in INSTEAD.items():
                if _has(block, key.split(".")):
                    yield f"{where}.{key}: all runs share it: {instead}"

    def _check_seeds(self) -> Iterator[str]:
        if not self.seeds:
            yield "seeds must name at least one seed"
        if len(set(self.seeds)) < len(self.seeds):
            yield f"seeds must differ, not {list(self.seeds)}"

    def _check_samplers(self) -> Iterator[str]:
        for name in self.samples.samplers if self.samples else ():
            if name not in self.runs:
                yield f"samples.samplers: there is no run '{name}'; runs: {', '.join(self.runs)}"


INSTEAD = {"seed": "set seeds", "run_dir": "set out", "data.corpus": "set corpus"}
"""Settings of a run that the comparison makes, each with the key to write instead."""


def _has(block: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(block, dict) or part not in block:
            return False
        block = block[part]
    return True
