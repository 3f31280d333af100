"""``python -m tools.sample RUN``: text from a run or checkpoint.

    python -m tools.sample runs/demo --num 4 --length 128 --sampler steps=64
    python -m tools.sample runs/demo --prompt 'The "assert" statement'
    python -m tools.sample runs/demo --prompt 'if ___{12}: return ___' --length 64
    python -m tools.sample runs/e2e --source 'name : Blue Spice | area : riverside'
    python -m tools.sample runs/e2e --sampler help

Text of a prompt stays as it is; ``___`` is an equal share of the free length, ``___{n}``
exactly n tokens. An encoder-decoder writes a target for each ``--source``, a text or a
file of them: the candidate that is most like the others. The same seed gives the same
samples, whatever the batch.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.errors import UserError, exit_code
from configs.words import parse
from tools import command
from tools.sample.options import (
    add_candidate_options,
    add_sampler_option,
    sampler_of,
    with_sampler,
)
from tools.sample.prompt import hints, length_hints

if TYPE_CHECKING:
    from pretrain.config import RunConfig


def _parser() -> argparse.ArgumentParser:
    parser = command.model_parser("sample", __doc__)
    parser.add_argument(
        "--num", type=command.positive, default=4, help="how many texts (default 4)"
    )
    parser.add_argument(
        "--length",
        type=command.positive,
        help="positions, BOS and EOS included (default: as trained; some samplers write more)",
    )
    parser.add_argument("--prompt", default="", help="fixed text, with ___ where more is wanted")
    command.add_batch_and_seed(parser, 16, of="texts", draws="the draws")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument(
        "--source", metavar="TEXT|FILE", help="what an encoder-decoder writes a target for"
    )
    parser.add_argument(
        "--source-field", default="source", help="of a JSON-lines file (default: source)"
    )
    add_candidate_options(parser)
    add_sampler_option(parser)
    return parser


def _check(arguments: argparse.Namespace, config: "RunConfig") -> None:
    """UserError for options that do not fit, before a model is loaded."""
    is_seq2seq = config.model.reads_source
    if is_seq2seq != (arguments.source is not None):
        raise UserError(
            f"{arguments.run} is an encoder-decoder: name what to write about with --source"
            if is_seq2seq
            else f"{arguments.run} is no encoder-decoder: use --prompt instead of --source"
        )
    if is_seq2seq and arguments.choose == "oracle":
        raise UserError("--choose oracle needs references; it belongs to tools.evaluate")
    sampler = sampler_of(arguments.sampler, config)
    notes = [] if is_seq2seq else hints(arguments.prompt)
    if arguments.length is not None:
        if arguments.length < 1:
            raise UserError(f"--length must be at least 1, not {arguments.length}")
        if not sampler.any_length:
            notes += length_hints(arguments.length, config)
    if os.environ.get("RANK", "0") == "0":
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from tools.sample.print_samples import print_samples

    return with_sampler(print_samples, _check, arguments)


if __name__ == "__main__":
    sys.exit(main())
