"""`sample`: our ancestral sampler against the public cached one, on one machine, in one run.

Both generate the same number of texts with the same weights in the same number of steps, and
sample the same distribution: the reference (:mod:`tools.bench.reference_sampling`) evaluates the
network, the head and a draw over the vocabulary at every position of every text whenever a token of
the batch changes; ours evaluates the texts that change, and head and draw at revealed positions.
"""

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from configs.build import Plugin
from model.draws import Draws
from model.networks.base import Network
from model.samplers import Job
from pretrain.launch.host_memory import keep_freed_memory
from tools.bench.measure import interleaved, machine_facts, ratio
from tools.bench.options import TICK, Shape, conclude, new_parser
from tools.bench.reference_sampling import cached_sample
from tools.bench.steps import OBJECTIVE
from tools.bench.train import SHAPE, add_case_options, device_named, moved_weights, synchronize
from tools.command import positive

SAMPLER: Any = Plugin("model.samplers").resolve(OBJECTIVE.sampler)
"""The sampler that is timed."""


@dataclass(frozen=True, kw_only=True)
class Case(Shape):
    """A shape, and numbers of steps, each with the speed-up to reach; None without a target."""

    targets: dict[int, float | None]


CASES = (
    Case(name="default", batch=4, length=128, targets={16: 3.0, 64: 3.0, 256: 3.0}),
    Case(
        name="large-vocabulary", batch=2, length=128, vocab_size=50257, targets={16: 3.0, 64: 3.0}
    ),
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = new_parser(subparsers, run, __doc__, steps=None)
    add_case_options(parser, [case.name for case in CASES])
    parser.add_argument(
        "--steps", type=positive, nargs="+", metavar="N", help="numbers of steps of both samplers"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.set_defaults(repeats=2)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    keep_freed_memory()
    device = device_named(arguments.device)
    facts = machine_facts(device)
    cases = _cases(arguments)
    rounds = 2 * (arguments.repeats + 1) * sum(len(case.targets) for case in cases)
    rows: list[dict[str, Any]] = []
    with tqdm(total=rounds, unit="round", desc="bench sample") as bar, torch.inference_mode():
        for case in cases:
            for steps in case.targets:
                bar.set_postfix_str(f"{case.name}, {steps} steps")
                rows.append(measure(case, steps, device, arguments.repeats, bar.update))
    missed = any(row["met"] is False for row in rows)
    return conclude(arguments, _table(rows), facts, missed=missed, comparisons=rows)


def measure(
    case: Case, steps: int, device: torch.device, repeats: int, advance: Callable[[], object]
) -> dict[str, Any]:
    """The figures of a case with one number of steps."""
    denoiser = moved_weights(case.model, device).eval()
    evaluations: dict[str, list[int]] = {"ours": [], "reference": []}

    def ours() -> None:
        evaluations["ours"].append(_ours(denoiser, case, steps, len(evaluations["ours"])))

    def plain() -> None:
        torch.manual_seed(len(evaluations["reference"]))
        _, number = cached_sample(denoiser, batch=case.batch, length=case.length, steps=steps)
        evaluations["reference"].append(number)

    seconds = interleaved(
        {"ours": ours, "reference": plain}, steps=1, repeats=repeats,
        synchronize=synchronize(device), advance=advance, warm=False,
    )  # fmt: skip
    tokens, target = case.batch * case.length, case.targets[steps]
    speedup = ratio(seconds["reference"], seconds["ours"])
    return {
        "case": case.name,
        **{name: getattr(case, name) for name in SHAPE},
        "steps": steps,
        **{f"{who}_seconds": figures for who, figures in seconds.items()},
        **{f"{who}_evaluations": median(found) for who, found in evaluations.items()},
        **{f"{who}_tokens_per_second": tokens / median(found) for who, found in seconds.items()},
        "ratio": speedup,
        "target": target,
        "met": None if target is None else speedup >= target,
    }


def _ours(denoiser: Network, case: Case, steps: int, seed: int) -> int:
    """Generate a batch; the number of evaluations."""
    device = denoiser.embedding.weight.device
    ids_BL = torch.zeros(case.batch, case.length, dtype=torch.int64, device=device)
    job = Job(
        ids_BL=ids_BL,
        free_BL=torch.ones_like(ids_BL, dtype=torch.bool),
        position_B=torch.arange(case.batch, device=device),
        draws=Draws(seed=seed, split="sample", batch=case.batch),
        objective=OBJECTIVE,
        model=denoiser.config,
        network=denoiser,
    )
    SAMPLER(steps=steps).run(job)
    return job.evaluations


def _cases(arguments: argparse.Namespace) -> list[Case]:
    cases = [case for case in CASES if arguments.case is None or case.name in arguments.case]
    shape = {name: getattr(arguments, name) for name in SHAPE if getattr(arguments, name)}
    changed = []
    for case in cases:
        targets = {n: case.targets.get(n) for n in arguments.steps or case.targets}
        if shape:
            targets = dict.fromkeys(targets)
        changed.append(dataclasses.replace(case, targets=targets, **shape))
    return changed


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'case':<17}{'V':>7}{'steps':>7}{'ours tok/s':>12}{'ref. tok/s':>12}{'ours NFE':>10}"
        f"{'ref. NFE':>10}{'ratio':>8}{'target':>8}"
    ]
    for row in rows:
        target = "-" if row["target"] is None else f"{row['target']:.1f}x"
        lines.append(
            f"{row['case']:<17}{row['vocab_size']:>7}{row['steps']:>7}"
            f"{row['ours_tokens_per_second']:>12,.0f}{row['reference_tokens_per_second']:>12,.0f}"
            f"{row['ours_evaluations']:>10.0f}{row['reference_evaluations']:>10.0f}"
            f"{row['ratio']:>7.2f}x{target:>8}{TICK[row['met']]}"
        )
    return "\n".join(lines)
