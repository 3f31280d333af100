"""``python -m tools.crash``: kill runs at random moments, and look at what is left.

Small runs that save at every step or two are killed (SIGKILL, to all processes, one rank or
the launcher) during start-up, training and saving, and started again, half of the times
under another layout. Before and after each kill everything committed must be there and
sound in every byte, nothing half-written may be shown, and the run must go on with the
numbers of one that nothing interrupted. Then disks fill up and turn read-only under a run,
and its ranks die while they write.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import exit_code
from configs.words import parse
from tools import command

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
    return exit_code(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from tools.crash.print_result import print_result

    return print_result(arguments)


def _leave(number: int, frame: object) -> None:
    """As Ctrl-C does: disks are unmounted, and no process stays behind."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main())
