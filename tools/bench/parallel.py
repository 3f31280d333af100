"""`parallel`: what the machinery of parallel training costs, on the cores of one machine.

`engine`: one process under DeepSpeed ZeRO 1 against a plain PyTorch loop with the same
step, in turn. `dp2`, `tp2`, `pp2`: two ranks with a thread each against one rank with one
thread that has the machine to itself; every rank computes a batch of its own size (weak
scaling), so that tokens/s per core is the inverse of the time of a step. Beside them stand
`apart`, two single ranks that know nothing of each other, and `threads2`, one rank with two
threads and both batches. What `apart` lacks is the machine's (shared memory, shared clock,
other programs), and no layout can have it; so layouts are also given as a share of it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from configs.errors import UserError
from pretrain.config import RunConfig
from pretrain.launch.pool import Pool
from pretrain.parallel.config import ParallelConfig
from tools.bench.measure import machine_facts, ratio
from tools.bench.options import TICK, Shape, conclude, new_parser
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
class Side:
    """A function of :mod:`tools.bench.ranks` for ``size`` ranks of the pool, and its arguments."""

    size: int
    target: Callable[..., Any]
    config: RunConfig
    threads: int = 1


DEMO = Shape(name="demo", vocab_size=1024, width=128, layers=4, length=128)
LARGER = Shape(name="larger", length=128)
ENGINE_SHAPES = (DEMO, LARGER)
RANKS_SHAPE = DEMO


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = new_parser(subparsers, run, __doc__)
    parser.add_argument(
        "--case", action="append", choices=["engine", *LAYOUTS], help="default: all of them"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=list(TOLERANCE),
        default=list(TOLERANCE),
        help="default: both",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write JSON; returns the exit status.

    Raises:
        ValueError: on a machine with a GPU or without the engines, or if two sides disagree
            about the loss.
    """
    if torch.cuda.is_available():
        raise UserError(
            "parallel compares cores, and here its ranks would compute on the GPU: put "
            "CUDA_VISIBLE_DEVICES= in front of the command, or run `python -m tools.bench gpu`"
        )
    facts = machine_facts(torch.device("cpu"))
    cases = arguments.case or ["engine", *LAYOUTS]
    layouts = [name for name in LAYOUTS if name in cases]
    shapes = ENGINE_SHAPES if "engine" in cases else ()
    rounds = len(shapes) + ((arguments.repeats + 1) * (3 + len(layouts)) if layouts else 0)
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
    missed = any(row["met"] is False for row in rows)
    return conclude(arguments, _table(rows), facts, missed=missed, comparisons=rows)


class Bench:
    """Comparisons made by the ranks of a pool: ``repeats`` figures of ``steps`` steps each.

    Args:
        advance: called after every call of the pool.
    """

    def __init__(self, pool: Pool, steps: int, repeats: int, advance: Callable[[], object]) -> None:
        try:
            from tools.bench import ranks
        except ModuleNotFoundError as error:
            raise UserError(
                f"parallel needs {error.name}, which is not installed: run `pip install -e .`"
            ) from error
        self._ranks, self._pool, self._advance = ranks, pool, advance
        self._steps, self._repeats = steps, repeats

    def engine(self, shape: Shape, precision: str) -> dict[str, Any]:
        """One row: a process under the engine, against the plain loop."""
        config = run_config(shape.model, shape.batch, shape.length, precision)
        (timed,) = self._call(1, self._ranks.against_plain, config, self._steps, self._repeats)
        _refuse_different_losses("engine", timed.losses["engine"], timed.losses["plain"], precision)
        seconds, plain = timed.seconds["engine"], timed.seconds["plain"]
        row = _row("engine", shape, precision, timed.threads, seconds, plain)
        time = ratio(seconds, plain)
        return row | _verdict("time", time, MOST_TIME, time <= MOST_TIME) | {"of_apart": None}

    def ranks(self, shape: Shape, precision: str, layouts: Sequence[str]) -> list[dict[str, Any]]:
        """A row for ``apart``, ``threads2`` and each of the layouts, against one rank alone."""
        one, two = (
            run_config(shape.model, num * shape.batch, shape.length, precision) for num in (1, 2)
        )
        apart, together = self._ranks.apart, self._ranks.together
        sides = {
            "alone": Side(size=1, target=apart, config=one),
            "apart": Side(size=2, target=apart, config=one),
            "threads2": Side(size=1, target=apart, config=two, threads=2),
        }
        for name in layouts:
            config = replace(two, parallel=LAYOUTS[name])
            sides[name] = Side(size=2, target=together, config=config)
        seconds = self._in_turn(sides, precision)
        rows = []
        for name, figures in seconds.items():
            row = _row(name, shape, precision, sides[name].threads, figures, seconds["alone"])
            share, target = ratio(seconds["alone"], figures), LEAST_SHARE.get(name)
            met = None if target is None else share >= target
            of_apart = ratio(seconds["apart"], figures)
            rows.append(row | _verdict("speed", share, target, met) | {"of_apart": of_apart})
        return rows[1:]

    def _in_turn(self, sides: Mapping[str, "Side"], precision: str) -> dict[str, list[float]]:
        """Seconds of a step of every side; the first round is not counted, but checked."""
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        truth: dict[int, float] = {}
        for repeat in range(-1, self._repeats):
            for name, side in sides.items():
                timed = self._call(side.size, side.target, side.config, self._steps, side.threads)
                for rank in timed:
                    expected = truth.setdefault(side.config.global_batch, rank.losses["step"])
                    _refuse_different_losses(name, rank.losses["step"], expected, precision)
                if repeat >= 0:
                    seconds[name].append(max(rank.seconds["step"][0] for rank in timed))
        return seconds

    def _call(self, size: int, target: Callable[..., Any], *args: Any) -> list["Timed"]:
        timed: list[Timed] = self._pool.run(size, target, *args, timeout_s=TIMEOUT_S)
        self._advance()
        return timed


def _refuse_different_losses(name: str, loss: float, expected: float, precision: str) -> None:
    if not abs(loss - expected) <= TOLERANCE[precision] * abs(expected):
        raise UserError(
            f"{name}: loss {loss:.6f}, but {expected:.6f} after the same steps without it: one of "
            "the two is wrong, so their times mean nothing"
        )


def _row(
    case: str,
    shape: Shape,
    precision: str,
    threads: int,
    seconds: list[float],
    baseline_seconds: list[float],
) -> dict[str, Any]:
    tokens = shape.batch * shape.length
    if case == "engine":
        tokens //= threads  # one batch in all; elsewhere there is one for each core
    return {
        "case": case,
        **asdict(shape),
        "precision": precision,
        "threads": threads,
        "seconds": seconds,
        "baseline_seconds": baseline_seconds,
        "tokens_per_second_per_core": tokens / median(seconds),
        "baseline_tokens_per_second_per_core": tokens / median(baseline_seconds),
    }


def _verdict(figure: str, share: float, target: float | None, met: bool | None) -> dict[str, Any]:
    return {"figure": figure, "ratio": share, "target": target, "met": met}


_AGAINST = {"time": "plain loop", "speed": "one alone"}
_SIGN = {"time": "<=", "speed": ">="}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"{'case':<10}{'shape':<8}{'':<6}{'threads':>7}{'ms':>9}{'tok/s/core':>12}"
        f"  {'against':<11}{'ms':>9}{'tok/s/core':>12}{'of apart':>10}{'':>7}{'ratio':>7}"
        f"{'target':>8}"
    ]
    for row in rows:
        figure = row["figure"]
        target = "-" if row["target"] is None else f"{_SIGN[figure]}{row['target']:.2f}"
        of_apart = "-" if row["of_apart"] is None else f"{row['of_apart']:.2f}"
        lines.append(
            f"{row['case']:<10}{row['name']:<8}{row['precision']:<6}{row['threads']:>7}"
            f"{1e3 * median(row['seconds']):>9.1f}{row['tokens_per_second_per_core']:>12,.0f}"
            f"  {_AGAINST[figure]:<11}{1e3 * median(row['baseline_seconds']):>9.1f}"
            f"{row['baseline_tokens_per_second_per_core']:>12,.0f}{of_apart:>10}{figure:>7}"
            f"{row['ratio']:>7.2f}{target:>8}{TICK[row['met']]}"
        )
    return "\n".join(lines)
