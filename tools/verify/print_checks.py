"""The work of ``python -m tools.verify``: make the checks in turn, and print their verdicts."""

import argparse
import contextlib
import importlib
import json
import time
from collections.abc import Generator

import torch

from model.verification import oracles
from model.verification.check import Check, Comparison, judge
from pretrain.launch import local as launch
from pretrain.launch.pool import Pool, RankError
from tools import command
from tools.verify import table


def print_checks(arguments: argparse.Namespace, ranks: int) -> int:
    """Print a row for each check, up to the first that breaks; the exit status."""
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
