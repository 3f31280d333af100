"""The work of ``python -m tools.plan``: compare layouts, and print them."""

import argparse
import json
import sys

from configs.errors import UserError
from configs.load import load
from configs.words import split
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner import plan
from pretrain.planner import search as recommend
from pretrain.planner.hardware import Cluster, find
from pretrain.planner.search import Candidate
from pretrain.run.stored_config import read_file
from tools.plan import table as layout_table
from tools.plan.recommendation import as_json, facts, recommendation


def print_plan(arguments: argparse.Namespace) -> int:
    """Print the layouts and the one to take; 1 if none fits."""
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
