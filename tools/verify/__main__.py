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
import contextlib
import importlib
import json
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from configs.errors import UserError, exit_code
from model.verification import oracles
from model.verification.check import Check, Comparison, judge
from pretrain.launch import local as launch
from pretrain.launch.pool import Pool, RankError
from tools import command
from tools.verify import table

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
    return exit_code(lambda: _verify(arguments))


def _verify(arguments: argparse.Namespace) -> int:
    ranks = num_ranks(arguments.ranks)
    command.check_output("--json", arguments.json)
    torch.set_num_threads(1)  # the tensors here are small, and ranks share the cores
    began = time.perf_counter()
    known = table.facts(ranks)
    print(f"{table.line(known)}\n\n{table.HEAD}", flush=True)
    verdicts = []
    with contextlib.closing(_checks(arguments.only, ranks, arguments.steps)) as checks:
        for check in checks:
            verdict = judge(check, (RankError, oracles.NoOracleError))
            print(table.row(verdict), flush=True)
            verdicts.append(verdict)
            if not verdict.holds:
                break
    if arguments.json:
        record = {"facts": known, "checks": [table.record(verdict) for verdict in verdicts]}
        arguments.json.write_text(json.dumps(record, indent=2), encoding="utf-8")
    if not verdicts[-1].holds:
        again = ["--ranks", str(ranks), "--steps", str(arguments.steps)]
        print(table.breakage(verdicts[-1], known, again))
        return 1
    print(f"\nall {len(verdicts)} checks hold, in {time.perf_counter() - began:.0f} s")
    if arguments.only != "oracles":
        _tell_left_out(ranks)
    return 0


def num_ranks(asked: int | None) -> int:
    """How many ranks there may be, or are by default."""
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


def _checks(only: str | None, ranks: int, steps: int) -> Generator[Check, None, None]:
    device = command.best_device()
    if only != "oracles":
        launch.preload(tensor=True)  # goes on beside the oracles
    if only != "layouts":
        yield from oracles.checks(device)
    if only != "oracles":
        yield Check(name="engines", compare=_import_engines)
        from tools.verify import invariance
        from tools.verify.cases import MOST_RANKS

        with Pool(min(ranks, MOST_RANKS)) as pool:
            yield from invariance.Invariance(pool=pool, steps=steps, device=device).checks()


def _import_engines() -> list[Comparison]:
    """Takes seconds, and fails where DeepSpeed was built for another torch."""
    importlib.import_module("tools.verify.invariance")
    return [Comparison(what="errors while importing", deviation=0)]


def _tell_left_out(ranks: int) -> None:
    from tools.verify.invariance import left_out

    names = left_out(ranks)
    if names:
        print(f"not checked, since it takes more than --ranks {ranks}: {'; '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
