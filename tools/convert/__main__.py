"""``python -m tools.convert COMMAND``: weights to and from other formats.

    python -m tools.convert to-hf runs/demo exports/demo            # for transformers
    python -m tools.convert to-hf runs/demo exports/mdlm --format mdlm
    python -m tools.convert from-hf Qwen3-0.6B checkpoints/qwen --annealing-steps 2000
    python -m tools.convert from-hf mdlm.ckpt checkpoints/mdlm --weights ema
    python -m tools.convert average runs/a runs/b --out checkpoints/mean

Every conversion compares the logits of source and result, writes the report beside the
weights, and writes nothing where they differ by more than rounding. An incoming checkpoint holds
weights only: begin a run from it with ``python -m pretrain CKPT/model.yaml mine.yaml
fork_from=CKPT``. Exit status: 0 converted, 1 the logits
or the tokenizers' ids differ, 2 wrong input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.build import Plugin
from configs.errors import exit_code
from configs.hints import plain
from tools import command

FORMATS = Plugin("tools.convert.formats").names()
CKPT, OUT = "checkpoint or run directory", "where to write; must not exist"
WEIGHTS = "averaged over training (default), or as they were last"


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("convert", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_to_hf(commands)
    _add_from_hf(commands)
    _add_average(commands)
    for name, text in (
        ("to-safetensors", "a checkpoint's weights as one plain file"),
        ("strip", "weights only, of a checkpoint or of a pickled file"),
    ):
        added = _command(commands, name, text)
        added.add_argument("source", type=Path, metavar="CKPT", help=CKPT)
        added.add_argument("out", type=Path, metavar="OUT", help=OUT)
        added.add_argument("--weights", choices=("ema", "raw"), default=None, help=WEIGHTS)
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.add_argument(
        "--shard-mib",
        type=command.number(1, 2**20),
        default=1024,
        help="the most that a file holds (default 1024)",
    )
    return added


def _refuse_layout(parser: argparse.ArgumentParser) -> None:
    """``--layout`` has become ``--format``: layouts are those of ranks."""

    def renamed(text: str) -> str:
        raise argparse.ArgumentTypeError(f"it is called --format now: --format {plain(text)}")

    parser.add_argument("--layout", type=renamed, help=argparse.SUPPRESS)


def _add_to_hf(commands: Any) -> None:
    added = _command(commands, "to-hf", "a checkpoint of ours to a Hugging Face directory")
    added.add_argument("source", type=Path, metavar="CKPT", help=CKPT)
    added.add_argument("out", type=Path, metavar="OUT", help=OUT)
    added.add_argument("--weights", choices=("ema", "raw"), default="ema", help=WEIGHTS)
    added.add_argument(
        "--format",
        choices=FORMATS,
        default="palimpsest",
        help="whose names and shapes to write (default: our own, with its code beside it)",
    )
    _refuse_layout(added)
    beside = added.add_mutually_exclusive_group()
    beside.add_argument("--tokenizer", type=Path, help="by default that of the run's corpus")
    beside.add_argument("--no-tokenizer", action="store_true", help="write none")
    added.add_argument("--license", metavar="ID", help="of the weights, for the model card")
    added.add_argument(
        "--repository", metavar="OWNER/NAME", help="where they will be published, likewise"
    )


def _add_from_hf(commands: Any) -> None:
    text = "a Hugging Face directory, .safetensors, .bin or .ckpt to a checkpoint of ours"
    added = _command(commands, "from-hf", text)
    added.add_argument("source", type=Path, metavar="SOURCE", help="directory or file to read")
    added.add_argument("out", type=Path, metavar="OUT", help=OUT)
    added.add_argument("--format", choices=FORMATS, help="where no config.json has it")
    _refuse_layout(added)
    added.add_argument(
        "--weights", choices=("ema", "raw"), default="raw", help="of a .ckpt (default raw)"
    )
    added.add_argument("--tokenizer", type=Path, help="the one that goes with the weights")
    added.add_argument(
        "--mask-id", type=command.number(0), help="where the vocabulary has a [MASK]"
    )
    added.add_argument(
        "--length",
        type=command.number(3),
        help="positions that it was trained on, where no config.json has it",
    )
    added.add_argument(
        "--packing",
        choices=("wrap", "pad"),
        help="how documents became its samples, where no config.json has it (default wrap; pad: "
        "one a sample)",
    )
    added.add_argument("--heads", type=command.positive, help="where no config.json has it")
    added.add_argument("--time-conditioning", action="store_true", help="likewise")
    added.add_argument(
        "--shifted-output",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of a causal model: read each prediction off the position before (default)",
    )
    added.add_argument(
        "--annealing-steps",
        type=command.number(0),
        default=0,
        help="of a causal model: training steps over which attention opens (default 0)",
    )


def _add_average(commands: Any) -> None:
    added = _command(commands, "average", "the mean of several checkpoints' weights")
    added.add_argument("sources", type=Path, nargs="+", metavar="CKPT", help=CKPT)
    added.add_argument("--out", type=Path, required=True, help=OUT)
    added.add_argument("--weights", choices=("ema", "raw"), default="ema", help=WEIGHTS)
    added.add_argument(
        "--shares", type=command.finite, nargs="+", help="one for each (default: even)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)

    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from tools.convert.commands import COMMANDS

    print(f"{arguments.out}: {COMMANDS[arguments.command](arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
