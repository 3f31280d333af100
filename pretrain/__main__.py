"""``python -m pretrain CONFIG.yaml [more.yaml ...] [key.sub=value ...]``."""

from pretrain import preemption

if __name__ == "__main__":
    preemption.install()

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import RunError, UserError
from configs.load import is_override, load, merged, to_plain, to_yaml
from pretrain import launch
from pretrain.rank import train_rank

if TYPE_CHECKING:
    from pretrain.config import RunConfig

EPILOG = """\
examples:
  python -m pretrain configs/tiny.yaml                        20 steps on the demo corpus
  python -m pretrain configs/demo.yaml parallel.data=2        two ranks on this machine
  python -m pretrain configs/tiny.yaml optim.lr=1e-3 run_dir=runs/lr-1e-3
  python -m pretrain configs/demo.yaml --dry-run              what it would do
  python -m pretrain --keys optim ema                         what can be set, and what it means
  python -m pretrain configs/tiny.yaml --fresh                begin anew; the old run stays aside
  torchrun --nproc-per-node 8 -m pretrain configs/mdlm/owt.yaml

A run lives in its run directory and goes on from its newest checkpoint when it is started
again. SIGTERM, SIGUSR1, SIGUSR2 or one Ctrl-C save and stop it after the present step.

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
        "--fresh",
        action="store_true",
        help="begin anew: a run that is in the run directory already is moved aside first, to "
        "RUN.1 or the next free number, never deleted; refused while it is live",
    )
    return parser


def _numbers(text: str) -> list[int]:
    """Positive numbers between commas."""
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_intermixed_args(argv)
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
    if arguments.keys:
        return _list_keys(arguments.words)
    world = launch.external_world(os.environ)
    files = [Path(word) for word in arguments.words if not is_override(word)]
    if not files:
        raise UserError("name a configuration file, such as configs/tiny.yaml")
    overrides = [word for word in arguments.words if is_override(word)]
    if world is None and not arguments.dry_run:
        launch.preload(tensor=_asks_for_tensor_parallelism(files, overrides))

    from pretrain.config import RunConfig
    from pretrain.run_directory import RunDirectory, run_path

    config = load(RunConfig, files, overrides)
    path = run_path(config, files)

    from pretrain import plan

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

    # A launcher's further starts of the same command go on with what the first one began.
    fresh = arguments.fresh and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if not fresh:
        RunDirectory(path).check(config)
    numbers = plan.plan(config, ranks)
    _check_data(config)
    if config.fork_from:
        _check_fork(config, Path(config.fork_from))
    if fresh:
        if config.fork_from and Path(config.fork_from).resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"--fresh would move {config.fork_from} away, from which this run is to begin: "
                "choose another run_dir"
            )
        if world is None or world.rank == 0:
            _move_aside(path)
    elif _is_done(config, path):
        if world is None or world.rank == 0:
            print(f"{path} is done: {config.steps} steps; set steps=N to go on", file=sys.stderr)
        return 0
    if world is not None:
        return train_rank(world, config, path)
    if preemption.reason():
        return preemption.STOPPED
    return launch.run_local(numbers.ranks, train_rank, config, path)


def _list_keys(prefixes: Sequence[str]) -> int:
    from configs.documentation import listing
    from pretrain.config import RunConfig

    text = listing(RunConfig, prefixes)
    if not text:
        raise UserError(
            f"no key is, or begins with, {' or '.join(prefixes)}; `--keys` alone lists them all"
        )
    print(text)
    return 0


def _move_aside(path: Path) -> None:
    from pretrain.aside import move_aside

    aside = move_aside(path)
    if aside:
        print(f"--fresh: the run that was in {path} is in {aside} now", file=sys.stderr)


def _layouts(config: "RunConfig", numbers: Sequence[int]) -> dict[int, dict[str, object]]:
    """For each number of ranks: does the run's own layout fit, and if not, why, and which does."""
    from pretrain.elastic import report

    return {ranks: report(config, ranks) for ranks in numbers}


def _asks_for_tensor_parallelism(files: Sequence[Path], overrides: Sequence[str]) -> bool:
    """Before anything is validated: a guess by which the right imports start early."""
    layout = merged(files, overrides).get("parallel")
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

    with torch.device("meta"):
        parameters = build(config.model).parameter_names()
    names = fork_names(config)
    shapes = {
        f"master/{found}": tuple(p.shape)
        for p, name in parameters.items()
        if (found := names(name)) is not None
    }
    Reader(find(source)).require(shapes)


def _is_done(config: "RunConfig", path: Path) -> bool:
    from pretrain.checkpoint import store
    from pretrain.checkpoint.reader import Reader
    from pretrain.run_directory import RunDirectory

    newest, _ = store.newest(RunDirectory(path).checkpoints)
    return newest is not None and Reader(newest).state["step"] >= config.steps


if __name__ == "__main__":
    status = main()
    preemption.ignore()
    sys.exit(status)
