"""``python -m pretrain CONFIG.yaml [more.yaml ...] [key.sub=value ...]``."""

from pretrain import console, preemption

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
from configs.errors import RunError, UserError, in_words
from configs.load import load, merged, to_plain, to_yaml
from pretrain import device, launch
from pretrain.rank import train_rank

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
  torchrun --nproc-per-node 8 -m pretrain configs/mdlm/owt.yaml

A run lives in its run directory and goes on from its newest checkpoint when it is started
again. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or one Ctrl-C save and stop it after the present
step, whether they reach this command, its process group or any of its processes.

exit status: 0 done (or stopped by stop_after), 1 failed, 2 wrong input, 75 stopped by a
signal and resumable, 130 left at once after a second Ctrl-C
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pretrain",
        description="Train a text diffusion model, or go on training it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="+",
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
    first = os.environ.get("RANK", "0") == "0"
    try:
        return _run(arguments)
    except UserError as error:
        if first:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return preemption.INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
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
    from pretrain.run_directory import RunDirectory, run_path

    config = load(RunConfig, files, overrides)
    path = run_path(config, files)

    from pretrain import place, plan

    ranks = world.size if world else None
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

    numbers = plan.plan(config, ranks)
    if world is None and numbers.ranks > MOST_LOCAL_RANKS:
        raise UserError(
            f"{numbers.ranks:,} ranks would all start on this machine; start them with torchrun "
            "or python -m slurm, or change parallel"
        )
    device.check(config.device, numbers.ranks if world is None else 1)
    try:
        place.check(path)
        # The corpus first: where it is missing, another run in the directory is not what is wrong.
        _check_data(config)
        RunDirectory(path).check(config)
        if config.fork_from:
            _check_fork(config, Path(config.fork_from))
        at, settled = _newest_step(path, config.steps)
    except OSError as error:
        raise UserError(in_words(error)) from error
    if at >= config.steps and settled:
        if world is None or world.rank == 0:
            print(_nothing_to_do(path, at, config.steps), file=sys.stderr)
        return 0
    if world is not None:
        return train_rank(world, config, path)
    if preemption.reason():
        print("stopped before its first step; the same command goes on", file=sys.stderr)
        return preemption.STOPPED
    threads = launch.num_threads(os.environ)
    code = launch.run_local(numbers.ranks, train_rank, config, path, threads=threads)
    if code not in (0, preemption.STOPPED):
        RunDirectory(path).bury(f"its ranks ended with status {code}; see what they printed")
    return code


def _layouts(config: "RunConfig", numbers: Sequence[int]) -> dict[int, dict[str, object]]:
    """For each number of ranks: does the run's own layout fit, and if not, why, and which does."""
    from pretrain.elastic import report

    return {ranks: report(config, ranks) for ranks in numbers}


def _asks_for_tensor_parallelism(asked: Mapping[str, Any]) -> bool:
    """Before anything is validated: a guess by which the right imports start early."""
    layout = asked.get("parallel")
    return isinstance(layout, dict) and layout.get("tensor", 1) != 1


def _check_data(config: "RunConfig") -> None:
    """Open the corpus once before any rank is started, for the errors that this may give."""
    from model.draws import Draws
    from pretrain.data import open_corpus

    open_corpus(config, Draws(seed=config.seed, split="train", batch=config.global_batch))


def _check_fork(config: "RunConfig", source: Path) -> None:
    """UserError unless the weights to begin with are there and fit."""
    import torch

    from model.network import build
    from pretrain.checkpoint.reader import Reader
    from pretrain.checkpoint.training import fork_names
    from pretrain.checkpoint.weights import find
    from pretrain.data import corpus_path, load_tokenizer, other_tokenizer

    with torch.device("meta"):
        parameters = build(config.model).parameter_names()
    names = fork_names(config)
    shapes = {
        f"master/{found}": tuple(p.shape)
        for p, name in parameters.items()
        if (found := names(name)) is not None
    }
    reader = Reader(find(source))
    reader.require(shapes)
    corpus, trained = corpus_path(config), reader.state.get("tokenizer_sha256")
    problem = other_tokenizer(load_tokenizer(corpus), corpus, trained)
    if problem and config.fork_tokenizer == "same":
        raise UserError(f"{problem}; if that is meant, set fork_tokenizer=other")


def _newest_step(path: Path, steps: int) -> tuple[int, bool]:
    """The step of the newest checkpoint (0 before the first), and whether that may be the end."""
    from pretrain.checkpoint import store
    from pretrain.run_directory import RunDirectory

    directory = RunDirectory(path)
    newest, _ = store.newest(directory.checkpoints)
    if newest is None:
        return 0, True
    state = store.check(newest).state
    at = int(state["step"])
    if at < steps:
        return at, True
    # A request to stop may have come within the last validation.
    validated = directory.read_status().get("state") == "done" or not state.get("owes_validation")
    return at, validated and store.damage(newest) is None


def _nothing_to_do(path: Path, at: int, steps: int) -> str:
    if at == steps:
        return f"{path} is done: {steps} steps; set steps=N to go on"
    return (
        f"{path} is at step {at:,}: steps={steps} lies behind it; set steps above {at} to go on, "
        "or run_dir=PATH to begin another run"
    )


if __name__ == "__main__":
    status = main()
    preemption.ignore()
    sys.exit(status)
