"""``python -m tools.bench``: one subcommand for each comparison, one file for each subcommand.

Exit status: 0 measured, 1 a target missed under ``--check``, 2 an error, 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from configs.command_line import make_parser
from configs.errors import exit_code
from tools.bench import checkpoint, gpu, parallel, sample, train
from tools.command import check_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    parser = make_parser("tools.bench", "Measure this machine and this code.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (train, sample, parallel, checkpoint, gpu):
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    return exit_code(lambda: _run(arguments), interrupted="interrupted: nothing was written")


def _run(arguments: argparse.Namespace) -> int:
    check_output("--json", arguments.json)
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
