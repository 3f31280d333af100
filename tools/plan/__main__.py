"""``python -m tools.plan CONFIG``: what a run needs on a cluster, and the layout to run it with.

Nothing is trained, read or allocated: the numbers follow from the configuration, and hold
for models and clusters that no machine here has. The corpus need not exist.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from configs.errors import UserError, exit_code
from configs.load import load
from configs.words import parse, split
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner import plan
from pretrain.planner import search as recommend
from pretrain.planner.hardware import GPUS, Cluster, find
from pretrain.planner.search import Candidate
from pretrain.planner.speed import DEFAULT_MFU
from pretrain.run.stored_config import read_file
from tools import command
from tools.plan import table as layout_table
from tools.plan.recommendation import as_json, facts, recommendation

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
    return exit_code(lambda: _plan(arguments))


def _plan(arguments: argparse.Namespace) -> int:
    files, overrides = split(arguments.words)
    if not files:
        raise UserError("name a configuration file, such as configs/mdlm/owt.yaml")
    if not 0 < arguments.mfu <= 1:
        raise UserError(f"--mfu must lie in (0, 1], not {arguments.mfu}")
    config = load(RunConfig, files, overrides, read_file)
    cluster = Cluster(
        gpu=find(arguments.gpu),
        ranks=arguments.nodes * arguments.gpus_per_node,
        ranks_per_node=arguments.gpus_per_node,
    )
    ordered = recommend.candidates(config, cluster, arguments.mfu)
    chosen = recommend.choose(ordered)
    if arguments.json:
        print(json.dumps(as_json(config, cluster, arguments.mfu, ordered, chosen), indent=2))
        return 0 if chosen else 1
    own, remark = _configured(config, cluster, arguments.mfu)
    print(facts(config, cluster, arguments.mfu, ordered[0]))
    print()
    print(layout_table.table(ordered, chosen, own, cluster, everything=arguments.all))
    if remark:
        print(f"\nyour layout: {remark}")
    print()
    if chosen is None:
        print(f"error: {recommend.shortage(config, cluster, ordered[0])}", file=sys.stderr)
        return 1
    print(recommendation(config, cluster, chosen))
    return 0


def _configured(
    config: RunConfig, cluster: Cluster, mfu: float
) -> tuple[Candidate | None, str | None]:
    """The configuration's own layout, where it names one; or why it cannot run here."""
    if config.parallel == ParallelConfig():
        return None, None
    try:
        layout = plan.plan(config, cluster.ranks).layout
    except UserError as error:
        return None, str(error)
    return recommend.assess(config, layout, cluster, mfu), None


if __name__ == "__main__":
    sys.exit(main())
