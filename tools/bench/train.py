"""`train`: our training step against a plain one, on one machine, in one run.

A step is corrupt, forward, loss, backward and AdamW, with the same optimizer on both
sides (:mod:`tools.bench.steps`). Before any timing both sides must give the same loss on
the same corrupted batch. A shape that is given replaces that of the selected cases, whose
targets then do not apply.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from configs.errors import UserError
from model.draws import Draws
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from pretrain.launch.host_memory import keep_freed_memory
from pretrain.precision import DTYPES
from tools.bench import reference
from tools.bench.measure import interleaved, machine_facts, ratio
from tools.bench.options import TICK, Shape, conclude, new_parser
from tools.bench.steps import MasterWeights, OurStep, ReferenceStep, our_corrupt, our_loss
from tools.command import positive

PAIRS = ("fp32:fp32", "bf16:fp32", "bf16:bf16")
TOLERANCE = 1e-4
"""Relative difference of the two losses, in fp32, above which nothing is timed."""


@dataclass(frozen=True, kw_only=True)
class Case(Shape):
    """A shape, and what is compared at it.

    Args:
        targets: by pair ``ours:reference`` of precisions, the speed-up to reach; None for
            a figure that is printed and has no target.
    """

    targets: dict[str, float | None]


CASES = (
    Case(name="fp32", targets={"fp32:fp32": 1.7}),
    Case(name="bf16", targets={"bf16:fp32": 3.5, "bf16:bf16": None}),
    Case(name="large-vocabulary", targets={"fp32:fp32": 3.0}, vocab_size=50257),
)
SHAPE = ("vocab_size", "width", "layers", "heads", "batch", "length")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = new_parser(subparsers, run, __doc__, steps=2)
    add_case_options(parser, [case.name for case in CASES])
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PAIRS,
        metavar="OURS:REFERENCE",
        help=f"of the two sides (default: all): {', '.join(PAIRS)}",
    )
    parser.add_argument(
        "--carry-over", action=argparse.BooleanOptionalAction, default=True,
        help="whether the reference rewrites visible positions into one-hots, as the public code "
        "does; the loss is the same without, and the reference faster",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")


def add_case_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Which cases are measured, and a shape in place of theirs."""
    parser.add_argument("--case", action="append", choices=names, help="default: all of them")
    for name in SHAPE:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=positive,
            metavar="N",
            help="of the shape, in place of the cases' own",
        )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    keep_freed_memory()
    device = device_named(arguments.device)
    cases = _cases(arguments)
    facts = machine_facts(device)
    rounds = sum(len(_sides(case)) for case in cases) * (arguments.repeats + 1)
    rows: list[dict[str, Any]] = []
    with tqdm(total=rounds, unit="round", desc="bench train") as bar:
        for case in cases:
            bar.set_postfix_str(case.name)
            rows += measure(
                case, device, steps=arguments.steps, repeats=arguments.repeats,
                carry_over=arguments.carry_over, advance=bar.update,
            )  # fmt: skip
    form = "with" if arguments.carry_over else "without"
    note = f"reference: head and softmax at every position, {form} the carry-over of visible tokens"
    missed = any(row["met"] is False for row in rows)
    return conclude(arguments, f"{_table(rows)}\n{note}", facts, missed=missed, comparisons=rows)


def measure(
    case: Case,
    device: torch.device,
    *,
    steps: int,
    repeats: int,
    carry_over: bool,
    advance: Callable[[], object],
) -> list[dict[str, Any]]:
    """One row of figures for each pair of the case.

    Raises:
        ValueError: if the two sides disagree about the loss.
    """
    weights = moved_weights(case.model, device)
    tokens_BL = torch.randint(
        case.vocab_size, (case.batch, case.length), generator=torch.Generator().manual_seed(0)
    ).to(device)
    _refuse_different_losses(weights, tokens_BL, carry_over)
    sides: dict[str, Callable[[], object]] = {}
    for who, precision in _sides(case):
        trained = MasterWeights(deepcopy(weights), DTYPES[precision])
        sides[f"{who} {precision}"] = (
            OurStep(trained, tokens_BL)
            if who == "ours"
            else ReferenceStep(trained, tokens_BL, carry_over)
        )
    seconds = interleaved(
        sides, steps=steps, repeats=repeats, synchronize=synchronize(device), advance=advance
    )
    shape = {name: getattr(case, name) for name in SHAPE}
    rows = []
    for pair, target in case.targets.items():
        ours_precision, reference_precision = pair.split(":")
        ours = seconds[f"ours {ours_precision}"]
        plain = seconds[f"reference {reference_precision}"]
        speedup = ratio(plain, ours)
        rows.append(
            {
                "case": case.name,
                **shape,
                "carry_over": carry_over,
                "ours": ours_precision,
                "reference": reference_precision,
                "ours_seconds": ours,
                "reference_seconds": plain,
                "ours_tokens_per_second": tokens_BL.numel() / median(ours),
                "reference_tokens_per_second": tokens_BL.numel() / median(plain),
                "ratio": speedup,
                "target": target,
                "met": None if target is None else speedup >= target,
            }
        )
    return rows


def _refuse_different_losses(denoiser: Network, tokens_BL: Tensor, carry_over: bool) -> None:
    draws = Draws(seed=1, split="train", batch=tokens_BL.shape[0])
    position_B = torch.arange(tokens_BL.shape[0], device=tokens_BL.device)
    noisy = our_corrupt(tokens_BL, position_B, draws, denoiser)
    with torch.no_grad():
        ours = float(our_loss(denoiser.ask, noisy))
        plain = float(
            reference.mean_loss(
                denoiser, noisy.ids_BL, noisy.level_BK[:, 0], tokens_BL, carry_over=carry_over
            )
        )
    if not abs(ours - plain) <= TOLERANCE * abs(plain):
        raise UserError(
            f"our loss {ours:.6f} and the reference's {plain:.6f} differ on one corrupted batch: "
            "one of the steps is wrong, so their times mean nothing"
        )


def moved_weights(config: ModelConfig, device: torch.device) -> Network:
    """Initial weights, moved off the zeros at which every network predicts the same."""
    denoiser = build(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return denoiser.to(device)


def _sides(case: Case) -> list[tuple[str, str]]:
    """Who runs in which precision, ours first, each once."""
    pairs = [pair.split(":") for pair in case.targets]
    sides = [("ours", ours) for ours, _ in pairs] + [("reference", plain) for _, plain in pairs]
    return list(dict.fromkeys(sides))


def _cases(arguments: argparse.Namespace) -> list[Case]:
    cases = [case for case in CASES if arguments.case is None or case.name in arguments.case]
    shape = {name: getattr(arguments, name) for name in SHAPE if getattr(arguments, name)}
    changed = []
    for case in cases:
        pairs = arguments.precisions or case.targets
        targets = {pair: None if shape else case.targets.get(pair) for pair in pairs}
        changed.append(dataclasses.replace(case, targets=targets, **shape))
    return changed


def device_named(name: str) -> torch.device:
    """The device that ``--device`` asks for."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def synchronize(device: torch.device) -> Callable[[], None]:
    """A function that waits for the device."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'case':<17}{'V':>7}{'ours':>6}{'ref.':>6}{'ours ms':>10}{'ref. ms':>10}"
        f"{'ours tok/s':>12}{'ref. tok/s':>12}{'ratio':>8}{'target':>8}"
    ]
    for row in rows:
        ours, plain = (1e3 * median(row[f"{who}_seconds"]) for who in ("ours", "reference"))
        target = "-" if row["target"] is None else f"{row['target']:.1f}x"
        lines.append(
            f"{row['case']:<17}{row['vocab_size']:>7}{row['ours']:>6}{row['reference']:>6}"
            f"{ours:>10.1f}{plain:>10.1f}{row['ours_tokens_per_second']:>12,.0f}"
            f"{row['reference_tokens_per_second']:>12,.0f}{row['ratio']:>7.2f}x{target:>8}{TICK[row['met']]}"
        )
    return "\n".join(lines)
