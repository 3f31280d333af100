"""Shared by the subcommands of ``python -m tools.bench``: options, model shapes, and output."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.documentation import without_markup
from model.architectures.dit import DiT
from model.networks.config import ModelConfig
from tools.command import positive

TICK = {None: "", True: " ✓", False: " ✗"}
"""Behind a figure, whether its target is met."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A denoiser, and the batch of a step."""

    name: str
    vocab_size: int = 8192
    width: int = 256
    layers: int = 6
    heads: int = 4
    batch: int = 16
    length: int = 256

    @property
    def model(self) -> ModelConfig:
        """The denoiser of this shape."""
        return DiT(
            vocab_size=self.vocab_size,
            width=self.width,
            num_layers=self.layers,
            num_heads=self.heads,
        )


def new_parser(
    subparsers: Any,
    run: Callable[[argparse.Namespace], int],
    documentation: str | None,
    *,
    steps: int | None = 5,
    has_targets: bool = True,
) -> argparse.ArgumentParser:
    """The parser of one subcommand, with the options that most of them have.

    Args:
        documentation: the docstring of its module, which begins with its name: "`train`: our ...".
        steps: the default of ``--steps``; None where there are none.
        has_targets: whether there is ``--check``.
    """
    text = without_markup(documentation or "")
    name, _, summary = text.partition("\n")[0].partition(": ")
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name.strip("`"),
        help=summary.rstrip("."),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if steps is not None:
        parser.add_argument(
            "--steps",
            type=positive,
            default=steps,
            metavar="N",
            help=f"in a row for one figure (default {steps})",
        )
    parser.add_argument(
        "--repeats", type=positive, default=5, metavar="N", help="figures for each side (default 5)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there")
    if has_targets:
        parser.add_argument(
            "--check", action="store_true", help="exit status 1 if a target is missed"
        )
    parser.set_defaults(run=run, benchmark=name.strip("`"))
    return parser


def conclude(
    arguments: argparse.Namespace,
    text: str,
    machine: dict[str, object],
    *,
    missed: bool = False,
    **figures: Any,
) -> int:
    """Print the table and the machine, write all figures as JSON; the exit status."""
    print(text)
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    if arguments.json is not None:
        result = {"benchmark": arguments.benchmark, "machine": machine, **figures}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if missed and arguments.check else 0
