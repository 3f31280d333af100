"""Invariance under layouts: they change the cost of a run and none of its numbers.

The same few steps are taken under every layout that the ranks allow. Losses and gradient
norms are held to a plain PyTorch loop, which knows no engine; noise, held-out bound and
samples to one rank. fp32 shows a wrong layout as a deviation far above rounding, which in
bf16 would hide it; so bf16 is compared once, and loosely.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from model.verification.check import Check, Comparison
from pretrain.config import RunConfig
from pretrain.launch.pool import Pool
from pretrain.trial import OBJECTIVES, run_config
from tools.verify import layouts
from tools.verify.cases import CASES, ONE, PIPELINE, Case
from tools.verify.layouts import Outcome, assemble, deviation, merged_noise, near_ties
from tools.verify.reference_loop import PlainLoop

LOSS, NORM, FIRST_NORM, NATS, TIE = 1e-5, 1e-4, 1e-6, 1e-5, 1e-5
BF16_LOSS = 2e-2


SHIPPED = [case for case in CASES if not case.tests_only]
BF16 = "pipeline 2, bf16"


def left_out(ranks: int) -> list[str]:
    """The layouts that so few ranks cannot run."""
    names = [case.name for case in SHIPPED if case.ranks > ranks]
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
            for case in SHIPPED:
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
        ranks = one if case == ONE else self._run(objective, case)
        return compare(ranks, one, plain, initial)

    def _compare_bf16(self, objective: str) -> list[Comparison]:
        one, two = (self._run(objective, case, "bf16")[0] for case in (ONE, PIPELINE))
        return [_close("loss of one rank in bf16", two.losses, one.losses, BF16_LOSS)]


def compare(
    ranks: list[Outcome], one: list[Outcome], plain: PlainLoop, initial: dict[str, Tensor]
) -> list[Comparison]:
    """The numbers of a layout's ranks, compared with a plain loop and with one rank.

    Args:
        one: the outcome of one rank, or ``ranks`` itself. plain: after as many steps.
        initial: the weights at the beginning.
    """
    first, steps = ranks[0], len(ranks[0].losses)
    losses, grad_norms = plain.losses[:steps], plain.grad_norms[:steps]
    weights = assemble([piece for rank in ranks for piece in rank.initial])
    comparisons = [
        _close("loss", first.losses, losses, LOSS),
        _close("gradient norm", first.grad_norms, grad_norms, NORM),
        _close("first gradient norm", first.grad_norms[:1], grad_norms[:1], FIRST_NORM),
        _same("initial weights", _unequal(weights, initial, torch.equal)),
        _same("numbers of all ranks", _disagreeing(ranks)),
    ]
    if ranks is one:
        return comparisons
    return [
        *comparisons,
        _same("noise", _unequal(merged_noise(ranks), merged_noise(one))),
        _close("held-out nats", first.document_nats, one[0].document_nats, NATS),
        _same("drawn ids", _other_ids(plain.config, first, one[0])),
        _same("texts", _unequal(_numbered(first.samples), _numbered(one[0].samples))),
    ]


def _other_ids(config: RunConfig, found: Outcome, one: Outcome) -> list[str]:
    """Draws that differ from those of one rank, other than by rounding at a near tie."""
    ties = [False] * len(one.drawn)
    if one.logits is not None:
        ties = near_ties(config, one.logits, TIE).tolist()
    return [
        f"draw {number}: {a} in place of {b}"
        for number, (a, b, tie) in enumerate(zip(found.drawn, one.drawn, ties, strict=True))
        if a != b and not tie
    ]


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
