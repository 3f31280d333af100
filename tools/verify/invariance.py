"""Invariance: layouts change the cost of a run and none of its numbers.

The same few steps are taken under every layout that the ranks allow. Losses and gradient
norms are held to a plain PyTorch loop, which knows no engine; noise, held-out bound and
samples to one rank. fp32 shows a wrong layout as a deviation far above rounding, which in
bf16 would hide it; so bf16 is compared once, and loosely.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from model.verification.check import Check, Comparison
from pretrain.launch.pool import Pool
from pretrain.trial import OBJECTIVES, run_config
from tools.verify import layouts
from tools.verify.layouts import Outcome, assemble, deviation, merged_noise, near_ties
from tools.verify.reference_loop import PlainLoop

LOSS, NORM, FIRST_NORM, NATS, TIE = 1e-5, 1e-4, 1e-6, 1e-5, 1e-5
BF16_LOSS = 2e-2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layout; what the ranks leave over is data parallel.

    Args:
        everywhere: whether each objective is run on it; the others prove the engine, and take
            one objective for all.
    """

    name: str
    ranks: int
    parallel: dict[str, Any] = field(default_factory=dict)
    everywhere: bool = False


ONE = Case(name="1 rank", ranks=1, everywhere=True)
PIPELINE = Case(name="pipeline 2", ranks=2, parallel={"pipeline": 2}, everywhere=True)
CASES = (
    ONE,
    Case(name="4 micro-batches", ranks=1, parallel={"micro_batch": 4}, everywhere=True),
    Case(name="recompute", ranks=1, parallel={"recompute_every": 1}),
    Case(name="data 2", ranks=2),
    Case(name="tensor 2", ranks=2, parallel={"tensor": 2}, everywhere=True),
    Case(
        name="tensor 2, sequence parallel",
        ranks=2,
        parallel={"tensor": 2, "sequence_parallel": True},
        everywhere=True,
    ),
    PIPELINE,
    Case(name="data 2, ZeRO 2", ranks=2, parallel={"zero_stage": 2}),
    Case(
        name="data 2, ZeRO 3",
        ranks=2,
        parallel=layouts.ALL_CUT,
        everywhere=True,
    ),
    Case(name="data 4", ranks=4),
    Case(name="data 2 x tensor 2", ranks=4, parallel={"tensor": 2}),
    Case(
        name="data 2 x tensor 2, ZeRO 3",
        ranks=4,
        parallel={"tensor": 2, **layouts.ALL_CUT},
    ),
    Case(name="data 2 x pipeline 2", ranks=4, parallel={"pipeline": 2}),
    Case(
        name="tensor 2 x pipeline 2",
        ranks=4,
        parallel={"tensor": 2, "pipeline": 2},
        everywhere=True,
    ),
    Case(name="data 8", ranks=8),
    Case(name="data 2 x tensor 2 x pipeline 2", ranks=8, parallel={"tensor": 2, "pipeline": 2}),
)
BF16 = "pipeline 2, bf16"
MOST_RANKS = max(case.ranks for case in CASES)


def left_out(ranks: int) -> list[str]:
    """The layouts that so few ranks cannot run."""
    names = [case.name for case in CASES if case.ranks > ranks]
    return [*names, BF16] if PIPELINE.ranks > ranks else names


def of_engine() -> str:
    """The objective that the engine's own layouts are run with.

    The first one whose network sees the level, and so has every part that a block can have, and
    which reads each position once.
    """
    configs = {name: run_config(name) for name in OBJECTIVES.names()}
    return next(
        name
        for name, config in configs.items()
        if config.model.time_conditioning and config.objective.expansion == 1
    )


@dataclass(frozen=True, kw_only=True)
class Invariance:
    """The runs of a pool, compared; what they are compared with is run once.

    Args:
        device: of the plain loop.
    """

    pool: Pool
    steps: int
    device: torch.device

    def checks(self) -> Iterator[Check]:
        """One for each objective and layout that fits."""
        of_all = of_engine()
        for objective in OBJECTIVES.names():
            for case in CASES:
                if case.ranks <= self.pool.size and (case.everywhere or objective == of_all):
                    yield Check(
                        name=f"{objective}: {case.name}",
                        compare=partial(self._compare, objective, case),
                    )
        if PIPELINE.ranks <= self.pool.size:
            yield Check(name=f"{of_all}: {BF16}", compare=partial(self._compare_bf16, of_all))

    @cache  # noqa: B019 - one of them lives as long as the process
    def _plain(self, objective: str) -> tuple[PlainLoop, dict[str, Tensor]]:
        """The plain loop after its steps, and the weights it began with."""
        loop = PlainLoop(run_config(objective), self.device)
        names = loop.denoiser.parameter_names()
        initial = {name: value.detach().cpu().clone() for value, name in names.items()}
        for _ in range(self.steps):
            loop.step()
        return loop, initial

    @cache  # noqa: B019
    def _one(self, objective: str) -> list[Outcome]:
        return self._run(objective, ONE)

    def _run(self, objective: str, case: Case, precision: str = "fp32") -> list[Outcome]:
        config = run_config(objective, parallel=case.parallel, precision=precision)
        outcomes: list[Outcome] = self.pool.run(case.ranks, layouts.run, config, self.steps)
        return outcomes

    def _compare(self, objective: str, case: Case) -> list[Comparison]:
        plain, initial = self._plain(objective)
        one = self._one(objective)
        is_one = case.ranks == 1 and not case.parallel
        ranks = one if is_one else self._run(objective, case)
        first = ranks[0]
        weights = assemble([piece for rank in ranks for piece in rank.initial])
        comparisons = [
            _close("loss", first.losses, plain.losses, LOSS),
            _close("gradient norm", first.grad_norms, plain.grad_norms, NORM),
            _close("first gradient norm", first.grad_norms[:1], plain.grad_norms[:1], FIRST_NORM),
            _same("initial weights", _unequal(weights, initial, torch.equal)),
            _same("numbers of all ranks", _disagreeing(ranks)),
        ]
        if not is_one:
            comparisons += [
                _same("noise", _unequal(merged_noise(ranks), merged_noise(one))),
                _close("held-out nats", first.document_nats, one[0].document_nats, NATS),
                _same("drawn ids", self._other_ids(objective, first, one[0])),
                _same("texts", _unequal(_numbered(first.samples), _numbered(one[0].samples))),
            ]
        return comparisons

    def _other_ids(self, objective: str, found: Outcome, one: Outcome) -> list[str]:
        """Draws that differ from those of one rank, other than by rounding at a near tie."""
        ties = [False] * len(one.drawn)
        if one.logits is not None:
            ties = near_ties(run_config(objective), one.logits, TIE).tolist()
        return [
            f"draw {number}: {a} in place of {b}"
            for number, (a, b, tie) in enumerate(zip(found.drawn, one.drawn, ties, strict=True))
            if a != b and not tie
        ]

    def _compare_bf16(self, objective: str) -> list[Comparison]:
        one, two = (self._run(objective, case, "bf16")[0] for case in (ONE, PIPELINE))
        return [_close("loss of one rank in bf16", two.losses, one.losses, BF16_LOSS)]


def _close(what: str, found: list[float], truth: list[float], allowed: float) -> Comparison:
    lines = (" ".join(f"{value:.7g}" for value in values) for values in (found, truth))
    return Comparison(
        what=what,
        deviation=deviation(found, truth),
        allowed=allowed,
        figures="found {}\n  not {}".format(*lines),
    )


def _same(what: str, different: Iterable[object]) -> Comparison:
    listed = [str(one) for one in different]
    return Comparison(what=what, deviation=len(listed), figures=", ".join(listed))


def _unequal(
    found: dict[Any, Any], truth: dict[Any, Any], equal: Callable[[Any, Any], bool] | None = None
) -> list[Any]:
    """The keys that only one has, or under which they differ."""
    equal = equal or (lambda a, b: a == b)
    return [
        key
        for key in sorted(found.keys() | truth.keys())
        if key not in found or key not in truth or not equal(found[key], truth[key])
    ]


def _disagreeing(ranks: list[Outcome]) -> list[str]:
    """The ranks that report other numbers than the first."""
    names = ("losses", "grad_norms", "document_nats", "samples", "drawn")
    return [
        f"{name} of rank {number}"
        for number, outcome in enumerate(ranks)
        for name in names
        if getattr(outcome, name) != getattr(ranks[0], name)
    ]


def _numbered(texts: list[list[int]]) -> dict[str, list[int]]:
    return {f"text {number}": ids for number, ids in enumerate(texts)}
