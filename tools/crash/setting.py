"""The run that is crashed, its layouts, and references that nothing crashes."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.load import load
from pretrain.config import RunConfig
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.planner.plan import plan
from pretrain.run.metrics import read_rows
from tools.crash.evidence import KEEP_LAST, Evidence, Row
from tools.crash.start import Start

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml"

LAYOUTS = {
    "one rank": (),
    "data 2": ("parallel.data=2",),
    "tensor 2": ("parallel.tensor=2",),
    "pipeline 2": ("parallel.pipeline=2",),
    "data 2, ZeRO 3": ("parallel.data=2", "parallel.zero_stage=3"),
    "tensor 2 x pipeline 2": ("parallel.tensor=2", "parallel.pipeline=2"),
}

MOST_RANKS = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how runs are started.

    Args:
        scratch: a directory for all of them; words: settings of every run.
        pool: ranks for references, which thus need no start of their own.
    """

    scratch: Path
    pool: Pool
    words: Sequence[str] = field(default_factory=tuple)

    def _words(self, path: Path, layout: str, *more: str) -> list[str]:
        return [
            f"run_dir={path}",
            "steps=1000000",
            # Adam magnifies rounding where gradients vanish; its eps bounds by how much.
            "optim.eps=1e-6",
            "eval.every=0",
            f"checkpoint.keep_last={KEEP_LAST}",
            *LAYOUTS[layout],
            *self.words,
            *more,
        ]

    def config(self, path: Path, layout: str, *more: str) -> RunConfig:
        """The configuration of a run."""
        return load(RunConfig, [CONFIG], self._words(path, layout, *more))

    def start(self, path: Path, layout: str, *more: str) -> Start:
        """``python -m pretrain``; what it prints is appended to PATH.log."""
        cores = _one_core() if LAYOUTS[layout] == () else None
        words = self._words(path, layout, *more)
        return Start([str(CONFIG), *words], path.with_name(f"{path.name}.log"), cores)

    def reference(self, path: Path, layout: str, last: int) -> list[Row]:
        """The metrics of a run that goes to step ``last`` at one stretch, from where it stands."""
        config = self.config(path, layout, f"stop_after={last}", "checkpoint.every=1000000")
        self.pool.run(plan(config, None).ranks, _train, config, path)
        assert len(read_rows(path / "metrics.jsonl")) == last
        return Evidence(path, keep_every=0).rows()


def _train(world: World, config: RunConfig, path: Path) -> int:
    """One rank of a reference, with its output discarded."""
    allowed = os.sched_getaffinity(0)
    if world.size == 1:
        os.sched_setaffinity(0, _one_core())
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            return train_rank(world, config, path)
    finally:
        os.sched_setaffinity(0, allowed)


def _one_core() -> set[int]:
    """For a single rank: its threads would wait for each other on cores that others use too."""
    return {max(os.sched_getaffinity(0))}


def copy_of(path: Path, name: str) -> Path:
    """A copy of a run beside it; checkpoints, which nobody changes in place, are linked."""
    copy = path.with_name(name)
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(path / "checkpoints", copy / "checkpoints", copy_function=os.link)
    return copy
