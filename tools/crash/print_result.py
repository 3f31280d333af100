"""The work of ``python -m tools.crash``: kills in turn, then faults, until something is lost."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from configs.errors import UserError
from configs.load import merged
from configs.words import split
from pretrain.launch.pool import Pool
from tools import command
from tools.crash.faults import Faults
from tools.crash.kills import chains
from tools.crash.result import Result, line
from tools.crash.setting import MOST_RANKS, Setting
from tools.crash.start import Violation


def print_result(arguments: argparse.Namespace) -> int:
    """Crash runs, and print or write what is left of them; 1 if something was lost."""
    _check(arguments)
    again = f"python -m tools.crash --kills {arguments.kills} --seed {arguments.seed}"
    again += "" if arguments.faults else " --no-faults"
    scratch = Path(tempfile.mkdtemp(prefix="palimpsest-crash-"))
    result = Result(command=again)
    try:
        _survive(arguments, scratch, result)
    except Violation as violation:
        print(
            f"\n✗ {violation}\n\nafter {len(result.kills)} kills and {len(result.faults)} faults; "
            f"repeat it: {again}\nwhat is left, with all that the runs printed: {scratch}",
            file=sys.stderr,
        )
        return 1
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch)
    text = result.text()
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    return 0


def _survive(arguments: argparse.Namespace, scratch: Path, result: Result) -> None:
    rng = random.Random(arguments.seed)
    with Pool(MOST_RANKS) as pool:
        setting = Setting(scratch=scratch, pool=pool, words=arguments.words)
        for chain in chains(setting, arguments.kills, rng):
            with contextlib.closing(chain.run()) as kills:
                for killed in kills:
                    result.kills.append(killed)
                    print(line(len(result.kills), arguments.kills, killed), flush=True)
            if chain.is_mixed:
                result.worst[chain.name] = chain.worst
            print(f"✓ {chain.name}: the curve is as it must be", flush=True)
        if not arguments.faults:
            return
        with contextlib.closing(Faults(setting, rng).run()) as faults:
            for one in faults:
                result.faults.append(one)
                print(f"✓ {one.fault}: {one.outcome} ({one.seconds:.1f} s)", flush=True)


def _check(arguments: argparse.Namespace) -> None:
    command.check_output("--out", arguments.out)
    files, overrides = split(arguments.words)
    if files:
        raise UserError(f"{files[0]} is not key=value")
    merged([], overrides)
    if not Path("/proc/self/environ").exists():
        raise UserError("processes are found through /proc: run this on Linux")
    if torch.cuda.is_available():
        raise UserError(
            "curves are compared bit by bit, on processors: put CUDA_VISIBLE_DEVICES= in front "
            "of the command"
        )
