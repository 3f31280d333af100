"""``python -m pretrain CONFIG.yaml [more.yaml ...] [key.sub=value ...]``."""

from pretrain.launch import preemption
from pretrain.run import console

if __name__ == "__main__":
    console.survive()
    preemption.install()

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs import words
from configs.command_line import make_parser
from configs.errors import UserError, exit_code, in_words
from configs.exit_codes import STOPPED
from configs.load import load, merged, to_plain, to_yaml
from pretrain.launch import device
from pretrain.launch import local as launch
from pretrain.launch.rank import train_rank

if TYPE_CHECKING:
    from pretrain.config import RunConfig

MOST_LOCAL_RANKS = 256
"""A plain start makes no more processes than this: a slip must not bring the machine down."""

EPILOG = """\
examples:
  python -m pretrain configs/tiny.yaml                        20 steps on the demo corpus
  python -m pretrain configs/demo.yaml parallel.data=2        two ranks on this machine
  python -m pretrain configs/tiny.yaml optim.lr=1e-3 run_dir=runs/lr-1e-3
  python -m pretrain configs/demo.yaml --dry-run              what it would do
  python -m pretrain --help optim.lr                          what a key means; or those of a block
  python -m pretrain --keys                                   the same of every key
  python -m pretrain configs/tiny.yaml --fresh                begin anew; the old run stays aside
  torchrun --nproc-per-node 8 -m pretrain configs/mdlm/owt.yaml

A run lives in its run directory and goes on from its newest checkpoint when it is started
again. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or one Ctrl-C save and stop it after the present
step, whether they reach this command, its process group or any of its processes.

exit status: 0 done (or stopped by stop_after), 1 failed, 2 wrong input, 75 stopped by a
signal and resumable, 130 left at once after a second Ctrl-C
"""


KEYS_PAGE = "configs/keys.md"
"""The key reference, which ``--keys --markdown`` prints."""


class _HelpOnKeys(argparse.Action):
    """``--help``: the help of the command; ``--help KEY ...``: of the keys that are named."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the help and exit, or note the keys."""
        if not values:
            parser.print_help()
            parser.exit()
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    description = "Train a text diffusion model, or resume a run."
    parser = make_parser("pretrain", description, EPILOG, add_help=False)
    parser.add_argument(
        "-h",
        "--help",
        nargs="*",
        metavar="KEY",
        action=_HelpOnKeys,
        help="print this, or what keys such as optim or optim.lr are, and stop",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CONFIG.yaml | key.sub=value",
        help="configuration files, merged left to right, then single settings",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and plan, and stop"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: as JSON")
    parser.add_argument(
        "--ranks",
        metavar="N[,N...]",
        type=_numbers,
        help="with --dry-run --json: the layout on each of these numbers of ranks too",
    )
    parser.add_argument(
        "--keys",
        action="store_true",
        help="list every key with its type, default and meaning, or those below the keys that are "
        "named, and stop",
    )
    parser.add_argument(
        "--markdown", action="store_true", help=f"with --keys: all of them, as {KEYS_PAGE} has them"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew: a run that is in the run directory already is moved aside first, to "
        "RUN.1 or the next free number, never deleted; refused while it is live",
    )
    return parser


def _numbers(text: str) -> list[int]:
    """Positive numbers between commas."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise argparse.ArgumentTypeError("write numbers of ranks, with commas between them")
    numbers = [int(part) for part in parts]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("ranks are at least 1")
    return numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = words.parse(_parser(), argv)
    return exit_code(
        lambda: _run(arguments),
        log=console.log,
        log_user_error=console.log_rank_zero,
        user_errors=(UserError,),
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.markdown:
        return _print_keys_page(arguments)
    if arguments.keys or arguments.help:
        return _list_keys([*(arguments.help or ()), *arguments.words])
    if not arguments.dry_run and (arguments.json or arguments.ranks):
        raise UserError(
            "--json and --ranks belong to --dry-run; the ranks of a run are parallel.data x "
            "parallel.tensor x parallel.pipeline, such as parallel.data=2"
        )
    world = launch.external_world(os.environ)
    files, overrides = words.split(arguments.words)
    if not files:
        raise UserError("name a configuration file, such as configs/tiny.yaml")
    asked = merged(files, overrides)
    if asked.get("device") == "cpu":
        device.hide_gpus(os.environ)
    if world is None and not arguments.dry_run:
        launch.preload(tensor=_asks_for_tensor_parallelism(asked))

    from pretrain.config import RunConfig
    from pretrain.run.directory import RunDirectory, run_path
    from pretrain.run.stored_config import read_file

    config = load(RunConfig, files, overrides, read_file)
    path = run_path(config, files)

    from pretrain.planner import plan

    ranks = world.size if world else None
    if arguments.fresh and arguments.dry_run:
        raise UserError(
            f"--fresh moves a run aside when training starts, and --dry-run starts none; for a job "
            f"that is submitted, move it first: mv {path} {path}.1"
        )
    if arguments.dry_run:
        if arguments.json:
            print(
                json.dumps(
                    {
                        "config": to_plain(config),
                        "run_dir": str(path),
                        "plan": plan.as_json(config, ranks),
                        "layouts": _layouts(config, arguments.ranks or []),
                    },
                    indent=2,
                )
            )
        else:
            print(f"{to_yaml(config)}\nrun directory    {path}\n{plan.describe(config, ranks)}")
        return 0

    from pretrain.launch import preflight

    numbers = plan.plan(config, ranks)
    if world is None and numbers.ranks > MOST_LOCAL_RANKS:
        raise UserError(
            f"{numbers.ranks:,} ranks would all start on this machine; start them with torchrun "
            "or python -m slurm, or change parallel"
        )
    device.check(config.device, numbers.ranks if world is None else 1)
    # A launcher's further starts of the same command go on with what the first one began.
    fresh = arguments.fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    first = world is None or world.rank == 0
    try:
        nothing_to_do = preflight.check(config, path, fresh=fresh)
        if fresh and first:
            _move_aside(path)
    except OSError as error:
        raise UserError(in_words(error)) from error
    if nothing_to_do:
        if first:
            console.log(nothing_to_do)
        return 0
    if world is not None:
        return train_rank(world, config, path)
    if preemption.reason():
        console.log(preemption.STOPPED_EARLY)
        return STOPPED
    threads = launch.num_threads(os.environ)
    code = launch.run_local(numbers.ranks, train_rank, config, path, threads=threads)
    if code not in (0, STOPPED):
        RunDirectory(path).bury(f"its ranks ended with status {code}; see what they printed")
    return code


def _list_keys(prefixes: Sequence[str]) -> int:
    from configs.documentation import listing
    from pretrain.config import RunConfig

    print(listing(RunConfig, prefixes))
    return 0


def _print_keys_page(arguments: argparse.Namespace) -> int:
    from configs.key_page import page
    from pretrain.config import RunConfig

    if not arguments.keys or arguments.words:
        raise UserError("--markdown goes with --keys, and lists them all: name none")
    command = f"python -m pretrain --keys --markdown > {KEYS_PAGE}"
    introduction = (
        f"Generated by `{command}`; a test holds it fresh. `python -m pretrain --help KEY` prints "
        "the same of a key or block. In a file a key is nested (`optim: {lr: 1e-3}`), on a "
        "command line it is one word (`optim.lr=1e-3`)."
    )
    print(page(RunConfig, "Configuration keys", introduction), end="")
    return 0


def _move_aside(path: Path) -> None:
    from pretrain.run.aside import move_aside

    aside = move_aside(path)
    if aside:
        console.log(f"--fresh: the run that was in {path} is in {aside} now")


def _layouts(config: "RunConfig", numbers: Sequence[int]) -> dict[int, dict[str, object]]:
    """For each number of ranks: does the run's own layout fit, and if not, why, and which does."""
    from pretrain.planner.elastic import report

    return {ranks: report(config, ranks) for ranks in numbers}


def _asks_for_tensor_parallelism(asked: Mapping[str, Any]) -> bool:
    """Before anything is validated: a guess by which the right imports start early."""
    layout = asked.get("parallel")
    return isinstance(layout, dict) and layout.get("tensor", 1) != 1


if __name__ == "__main__":
    status = main()
    preemption.ignore()
    sys.exit(status)
