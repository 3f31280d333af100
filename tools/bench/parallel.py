"""`parallel`: what the machinery of parallel training costs, on the cores of one machine.

`engine`: one process under DeepSpeed ZeRO 1 against a plain PyTorch loop with the same
step, in turn. `dp2`, `tp2`, `pp2`: two ranks with a thread each against one rank with one
thread that has the machine to itself; every rank computes a batch of its own size (weak
scaling), so that tokens/s per core is the inverse of the time of a step. Beside them stands
`apart`, two single ranks that know nothing of each other: what is missing there is the
machine's (shared memory, shared clock), and no layout can have it.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from model.config import ModelConfig
from pretrain.config import ParallelConfig, RunConfig
from pretrain.pool import Pool
from tools.bench.measure import machine_facts, ratio
from tools.bench.train import DTYPES, _positive
from tools.bench.whole_step import run_config

if TYPE_CHECKING:
    from tools.bench.ranks import Timed

TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}
"""Relative difference of two losses after a few steps, above which times mean nothing."""

LAYOUTS = {
    "dp2": ParallelConfig(data=2),
    "tp2": ParallelConfig(tensor=2),
    "pp2": ParallelConfig(pipeline=2),
}

MOST_TIME = 1.10
"""The target for ``engine``: its time, over that of the plain loop."""

LEAST_SHARE = {"dp2": 0.8}
"""The target for layouts: tokens/s per core, over those of one rank alone. Some have none."""

TIMEOUT_S = 3600.0
"""For one call of the ranks, which may be of many steps."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and the batch of a rank."""

    name: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    batch: int
    length: int

    @property
    def model(self) -> ModelConfig:
        """The denoiser of this shape."""
        return ModelConfig(
            vocab_size=self.vocab_size,
            width=self.width,
            num_layers=self.layers,
            num_heads=self.heads,
        )


DEMO = Shape(name="demo", vocab_size=1024, width=128, layers=4, heads=4, batch=16, length=128)
LARGER = Shape(name="larger", vocab_size=8192, width=256, layers=6, heads=4, batch=16, length=128)
ENGINE_SHAPES = (DEMO, LARGER)
RANKS_SHAPE = DEMO


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = subparsers.add_parser(
        "parallel",
        help="the engines against a plain loop, and two ranks against one",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--case", action="append", choices=["engine", *LAYOUTS], help="default: all of them"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=list(DTYPES), default=list(DTYPES), help="default: both"
    )
    parser.add_argument(
        "--steps",
        type=_positive,
        default=5,
        metavar="N",
        help="in a row for one figure (default 5)",
    )
    parser.add_argument(
        "--repeats", type=_positive, default=5, metavar="N", help="figures for a side (default 5)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write JSON; returns the exit status.

    Raises:
        ValueError: on a machine with a GPU or without the engines, or if two sides disagree
            about the loss.
    """
    if torch.cuda.is_available():
        raise ValueError(
            "parallel compares cores, and here its ranks would compute on the GPU: put "
            "CUDA_VISIBLE_DEVICES= in front of the command, or run `python -m tools.bench gpu`"
        )
    facts = machine_facts(torch.device("cpu"))
    cases = arguments.case or ["engine", *LAYOUTS]
    layouts = [name for name in LAYOUTS if name in cases]
    shapes = ENGINE_SHAPES if "engine" in cases else ()
    rounds = len(shapes) + (2 + (arguments.repeats + 1) * (2 + len(layouts)) if layouts else 0)
    rows: list[dict[str, Any]] = []
    with (
        Pool(2) as pool,
        tqdm(total=rounds * len(arguments.precisions), unit="round", desc="bench parallel") as bar,
    ):
        bench = Bench(pool, arguments.steps, arguments.repeats, bar.update)
        for precision in arguments.precisions:
            rows += [bench.engine(shape, precision) for shape in shapes]
            if layouts:
                rows += bench.ranks(RANKS_SHAPE, precision, layouts)
    print(_table(rows))
    print("machine: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    if arguments.json is not None:
        result = {"benchmark": "parallel", "machine": facts, "comparisons": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    missed = any(row["met"] is False for row in rows)
    return 1 if arguments.check and missed else 0


class Bench:
    """Comparisons made by the ranks of a pool, with so many steps for each of so many figures.

    Args:
        advance: called after every call of the pool.
    """

    def __init__(self, pool: Pool, steps: int, repeats: int, advance: Callable[[], object]) -> None:
        try:
            from tools.bench import ranks
        except ModuleNotFoundError as error:
            raise ValueError(
                f"parallel needs {error.name}, which is not installed: run `pip install -e .`"
            ) from error
        self._ranks, self._pool, self._advance = ranks, pool, advance
        self._steps, self._repeats = steps, repeats

    def engine(self, shape: Shape, precision: str) -> dict[str, Any]:
        """One row: a process under the engine, against the plain loop."""
        config = run_config(shape.model, shape.batch, shape.length, precision)
        (timed,) = self._call(1, self._ranks.against_plain, config, self._steps, self._repeats)
        _refuse_different_losses("engine", timed.losses["engine"], timed.losses["plain"], precision)
        row = _row(
            "engine", shape, precision, timed.threads,
            timed.seconds["engine"], "plain loop", timed.seconds["plain"],
        )  # fmt: skip
        time = ratio(timed.seconds["engine"], timed.seconds["plain"])
        return row | {
            "figure": "time",
            "ratio": time,
            "target": MOST_TIME,
            "met": time <= MOST_TIME,
        }

    def ranks(self, shape: Shape, precision: str, layouts: Sequence[str]) -> list[dict[str, Any]]:
        """A row for ``apart`` and each of the layouts, against one rank alone."""
        one, two = (
            run_config(shape.model, num * shape.batch, shape.length, precision) for num in (1, 2)
        )
        expected = {
            config.global_batch: self._call(1, self._ranks.apart, config, 1)[0].losses["step"]
            for config in (one, two)
        }
        sides: dict[str, tuple[int, Any, RunConfig]] = {
            "alone": (1, self._ranks.apart, one),
            "apart": (2, self._ranks.apart, one),
        }
        for name in layouts:
            config = replace(two, parallel=LAYOUTS[name])
            sides[name] = (2, self._ranks.together, config)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(-1, self._repeats):
            for name, (size, target, config) in sides.items():
                timed = self._call(size, target, config, self._steps)
                for rank in timed:
                    truth = expected[config.global_batch]
                    _refuse_different_losses(name, rank.losses["step"], truth, precision)
                if repeat >= 0:
                    seconds[name].append(max(rank.seconds["step"][0] for rank in timed))
        rows = []
        alone = seconds.pop("alone")
        for name, figures in seconds.items():
            row = _row(name, shape, precision, 1, figures, "one alone", alone)
            share, target = ratio(alone, figures), LEAST_SHARE.get(name)
            met = None if target is None else share >= target
            rows.append(row | {"figure": "speed", "ratio": share, "target": target, "met": met})
        return rows

    def _call(self, size: int, target: Callable[..., Any], *args: Any) -> list["Timed"]:
        timed: list[Timed] = self._pool.run(size, target, *args, timeout_s=TIMEOUT_S)
        self._advance()
        return timed


def _refuse_different_losses(name: str, loss: float, expected: float, precision: str) -> None:
    if not abs(loss - expected) <= TOLERANCE[precision] * abs(expected):
        raise ValueError(
            f"{name}: loss {loss:.6f}, but {expected:.6f} after the same steps without it: one of "
            "the two is wrong, so their times mean nothing"
        )


def _row(
    case: str,
    shape: Shape,
    precision: str,
    threads: int,
    seconds: list[float],
    baseline: str,
    baseline_seconds: list[float],
) -> dict[str, Any]:
    tokens = shape.batch * shape.length / threads
    return {
        "case": case,
        **asdict(shape),
        "precision": precision,
        "threads": threads,
        "seconds": seconds,
        "baseline": baseline,
        "baseline_seconds": baseline_seconds,
        "tokens_per_second_per_core": tokens / median(seconds),
        "baseline_tokens_per_second_per_core": tokens / median(baseline_seconds),
    }


_SIGN = {"time": "<=", "speed": ">="}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"{'case':<8}{'shape':<8}{'':<6}{'threads':>7}{'ms':>9}{'tok/s/core':>12}"
        f"  {'against':<11}{'ms':>9}{'tok/s/core':>12}{'':>9}{'ratio':>7}{'target':>8}"
    ]
    for row in rows:
        sign = _SIGN[row["figure"]]
        target = "-" if row["target"] is None else f"{sign}{row['target']:.2f}"
        tick = {None: "", True: " ✓", False: " ✗"}[row["met"]]
        lines.append(
            f"{row['case']:<8}{row['name']:<8}{row['precision']:<6}{row['threads']:>7}"
            f"{1e3 * median(row['seconds']):>9.1f}{row['tokens_per_second_per_core']:>12,.0f}"
            f"  {row['baseline']:<11}{1e3 * median(row['baseline_seconds']):>9.1f}"
            f"{row['baseline_tokens_per_second_per_core']:>12,.0f}{row['figure']:>9}"
            f"{row['ratio']:>7.2f}{target:>8}{tick}"
        )
    return "\n".join(lines)
