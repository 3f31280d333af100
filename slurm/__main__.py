"""``python -m slurm submit|status|logs|cancel|requeue``: runs on a SLURM cluster."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.command_line import describe_commands, make_parser
from configs.documentation import listing
from configs.errors import exit_code
from slurm.settings import Settings

EPILOG = """\
examples:
  python -m slurm submit configs/slurm/gpu.yaml -- configs/mdlm/owt.yaml run_dir=runs/owt
  python -m slurm submit configs/slurm/gpu.yaml nodes=4 --print -- configs/mdlm/owt.yaml
  python -m slurm submit configs/slurm/gpu.yaml --sweep optim.lr=1e-4,3e-4 seed=1,2 -- my.yaml
  python -m slurm status                  all runs below runs/
  python -m slurm logs runs/owt --follow
  python -m slurm requeue runs/owt --exclude node7
  python -m slurm cancel runs/owt
"""


RUN = "run directory"


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Of ``submit``, options and settings in any order, and the words of the run."""
    parser, submit = _parsers()
    if words[:1] != ["submit"]:
        return parser.parse_args(words)
    at = words.index("--") if "--" in words else len(words)
    arguments = submit.parse_intermixed_args(words[1:at])
    arguments.command, arguments.words = "submit", words[at + 1 :]
    return arguments


def _parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = make_parser("slurm", "Submit runs, follow them, stop them.", EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    submit = commands.add_parser(
        "submit",
        help="check and submit a run: CLUSTER.yaml [key=value ...] -- words of pretrain",
        epilog=f"settings of a cluster file:\n\n{listing(Settings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    submit.add_argument(
        "cluster", type=Path, metavar="CLUSTER.yaml", help="what the job asks of the cluster"
    )
    submit.add_argument("settings", nargs="*", metavar="key=value", help="change its settings")
    submit.add_argument("--print", action="store_true", help="print a job script, and stop")
    submit.add_argument("--local", action="store_true", help="run the same job here, and wait")
    submit.add_argument(
        "--chain", type=int, default=1, metavar="N", help="N jobs in a row (default 1)"
    )
    submit.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="key=a,b",
        help="a run for each combination; lists as key=[a,b],[c,d]",
    )
    status = commands.add_parser("status", help="show the state of runs and their jobs")
    status.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="default: below runs/")
    logs = commands.add_parser("logs", help="show the output of a run")
    logs.add_argument("run", type=Path, metavar="RUN", help=RUN)
    logs.add_argument(
        "--rank", type=int, default=0, help="whose output (default 0); -1 for the supervisor's"
    )
    logs.add_argument("--lines", type=int, default=40, help="length of the end (default 40)")
    logs.add_argument("--follow", action="store_true", help="keep printing what is added")
    cancel = commands.add_parser("cancel", help="save and end a run's jobs")
    cancel.add_argument("run", type=Path, metavar="RUN", help=RUN)
    requeue = commands.add_parser(
        "requeue", help="save and restart a run, or continue an ended one"
    )
    requeue.add_argument("run", type=Path, metavar="RUN", help=RUN)
    requeue.add_argument(
        "--exclude", default="", metavar="NODES", help="not on these nodes; none: on all"
    )
    describe_commands(commands)
    return parser, submit


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parsed(list(sys.argv[1:] if argv is None else argv))
    from slurm.commands import cancel, status, submit

    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "submit": submit.run,
        "status": status.status,
        "logs": status.logs,
        "cancel": cancel.cancel,
        "requeue": cancel.requeue,
    }
    return exit_code(lambda: commands[arguments.command](arguments))


if __name__ == "__main__":
    sys.exit(main())
