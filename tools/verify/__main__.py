"""``python -m tools.verify``: whether this installation computes what it should.

Run it once on every new machine or cluster node, before training there. It checks

oracles    of the noise and of every installed objective: quantities that are known exactly
           (published vectors, log-likelihoods of distributions small enough to enumerate)
layouts    that data, tensor, pipeline and sequence parallelism, ZeRO, accumulation and
           recomputation give the numbers of a plain PyTorch loop: a few steps of a small
           model under each layout that fits into --ranks

and stops at the first check that breaks. Ranks are processes on this machine: one for each
GPU over NCCL, or, without GPUs, on its cores over gloo.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import UserError, exit_code
from tools import command

RANKS = 4
STEPS = 8
"""The first few train no weight inside a block, whose gates and head start at zero."""

EPILOG = """\
Each row shows the comparison that came nearest its bound; --json has them all.

examples:
  python -m tools.verify                      everything that 4 ranks can run
  python -m tools.verify --ranks 8            on a node of 8 GPUs
  python -m tools.verify --only oracles       seconds, in one process

exit status: 0 all checks hold, 1 one broke, 2 wrong input
"""


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("verify", __doc__, EPILOG)
    parser.add_argument(
        "--ranks",
        type=command.number(1, 2**16),
        metavar="N",
        help=f"processes, at most one a GPU; more than 8 find nothing to do (default {RANKS}, "
        "or as many as there are GPUs)",
    )
    parser.add_argument(
        "--steps",
        type=command.positive,
        default=STEPS,
        help=f"of training under each layout (default {STEPS})",
    )
    parser.add_argument("--only", choices=("oracles", "layouts"), help="leave the others out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    ranks = num_ranks(arguments.ranks)
    command.check_output("--json", arguments.json)

    from tools.verify.print_checks import print_checks

    return print_checks(arguments, ranks)


def num_ranks(asked: int | None) -> int:
    """How many ranks there may be, or are by default."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if asked is None:
        return RANKS if num_gpus is None else min(RANKS, num_gpus)
    if asked < 1:
        raise UserError(f"--ranks must be at least 1, not {asked}")
    if num_gpus is not None and asked > num_gpus:
        raise UserError(
            f"--ranks {asked} is more than the {num_gpus} GPUs of this machine, and each rank "
            f"needs one; use --ranks {num_gpus}, or hide the GPUs to check with CPU ranks "
            "(CUDA_VISIBLE_DEVICES=)"
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
