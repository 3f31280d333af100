"""``python -m tools.plan CONFIG``: what a run needs on a cluster, and the layout to run it with.

Nothing is trained, read or allocated: the numbers follow from the configuration, and hold
for models and clusters that no machine here has. The corpus need not exist.
"""

import argparse
import sys
from collections.abc import Sequence

from configs.errors import exit_code
from configs.words import parse
from pretrain.planner.hardware import DEFAULT_MFU, GPUS
from tools import command

EPILOG = f"""\
examples:
  python -m tools.plan configs/demo.yaml --gpu cpu --gpus-per-node 2
  python -m tools.plan configs/mdlm/owt.yaml --gpu h100-80g --nodes 16 --gpus-per-node 8
  python -m tools.plan configs/mdlm/owt.yaml parallel.tensor=2   compares a layout of yours
  an 8B model on 64 GPUs:
    python -m tools.plan configs/mdlm/owt.yaml --nodes 8 model.width=4096 \\
      model.num_layers=32 model.num_heads=32 model.vocab_size=128256 model.dropout=0
  the shape of a 70B model on 1,024 GPUs:
    python -m tools.plan configs/mdlm/owt.yaml --nodes 128 model.width=8192 \\
      model.num_layers=80 model.num_heads=64 model.mlp=swiglu model.mlp_width=28672 \\
      model.vocab_size=128256 model.dropout=0 global_batch=1024 data.sequence_length=4096

GPUs: {", ".join(GPUS)}

exit status: 0 a layout is recommended, 1 nothing fits, 2 wrong input
"""


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("plan", __doc__, EPILOG)
    size = command.number(1, 100_000)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="CONFIG.yaml | key.sub=value",
        help="configuration files, merged left to right, then single settings",
    )
    parser.add_argument(
        "--gpu", default="h100-80g", metavar="NAME", help="kind of GPU (default h100-80g)"
    )
    parser.add_argument("--nodes", type=size, default=1, metavar="N", help="nodes (default 1)")
    parser.add_argument(
        "--gpus-per-node", type=size, default=8, metavar="N", help="GPUs in each (default 8)"
    )
    parser.add_argument(
        "--mfu",
        type=command.finite,
        default=DEFAULT_MFU,
        metavar="SHARE",
        help="share of its peak that a GPU reaches while it computes; bubble and traffic come "
        f"on top (default {DEFAULT_MFU})",
    )
    parser.add_argument("--all", action="store_true", help="list every sensible layout")
    parser.add_argument("--json", action="store_true", help="all numbers as JSON, in bytes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from tools.plan.print_plan import print_plan

    return print_plan(arguments)


if __name__ == "__main__":
    sys.exit(main())
