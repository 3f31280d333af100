"""``python -m tools.crash``: kill runs at random moments, and look at what is left.

Small runs that save at every step or two are killed (SIGKILL, to all processes, one rank or
the launcher) during start-up, training and saving, and started again, half of the times
under another layout. Before and after each kill everything committed must be there and
sound in every byte, nothing half-written may be shown, and the run must go on with the
numbers of one that nothing interrupted. Then disks fill up and turn read-only under a run,
and its ranks die while they write.
"""

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from configs.errors import UserError, exit_code
from configs.load import merged
from configs.words import parse, split
from pretrain.launch.pool import Pool
from tools import command
from tools.crash.faults import Faults
from tools.crash.kills import chains
from tools.crash.result import Result, line
from tools.crash.setting import MOST_RANKS, Setting
from tools.crash.start import Violation

EPILOG = """\
examples:
  python -m tools.crash --out tools/crash-result.md     40 kills and all faults
  python -m tools.crash --kills 3 --no-faults           a sample
  python -m tools.crash --kills 0                       only the disks that fail (as root)

exit status: 0 nothing was lost, 1 something was (what is left is kept to be looked at),
2 wrong input
"""


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("crash", __doc__, EPILOG)
    parser.add_argument(
        "words", nargs="*", metavar="key.sub=value", help="settings of all runs besides"
    )
    parser.add_argument(
        "--kills",
        type=command.number(0, 10**6),
        default=40,
        metavar="N",
        help="how many runs to kill (default 40)",
    )
    parser.add_argument(
        "--seed", type=command.seed, default=0, help="of what is killed when (default 0)"
    )
    parser.add_argument(
        "--faults",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="afterwards, disks that fail and ranks that die in a save (mounting takes root)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result as Markdown")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse(_parser(), argv)
    return exit_code(lambda: _crash(arguments))


def _crash(arguments: argparse.Namespace) -> int:
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


def _leave(number: int, frame: object) -> None:
    """As Ctrl-C does: disks are unmounted, and no process stays behind."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main())
