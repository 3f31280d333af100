"""Shared by all commands: argument types, output checks, and running on the requested ranks.

A command that loads a model runs in one process, or on as many ranks as its words ask for:
``python -m tools.evaluate RUN parallel.tensor=2`` starts two here, under torchrun it uses
those that are there.
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.command_line import make_parser
from configs.documentation import without_markup
from configs.errors import UserError
from configs.hints import plain
from configs.load import merged, validate
from pretrain.launch import device
from pretrain.launch import local as launch
from pretrain.launch.local import World
from pretrain.parallel.config import ParallelConfig

if TYPE_CHECKING:
    import torch

    from pretrain.checkpoint.weights import Loaded


def parser(
    name: str, description: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """The parser of ``python -m tools.NAME``, its texts printed as they are written."""
    return make_parser(f"tools.{name}", without_markup(description or ""), epilog)


def number(least: int = 1, most: int = 2**31) -> Callable[[str], int]:
    """The type of an argument that is a whole number in a range, both ends included."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{plain(text)} is no whole number") from None
        if not least <= found <= most:
            bound = f"at least {least}" if found < least else f"at most {most}"
            raise argparse.ArgumentTypeError(f"{plain(text)} is not {bound}")
        return found

    return read


def finite(text: str) -> float:
    """The type of an argument that is a finite number."""
    try:
        found = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{plain(text)} is no number") from None
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return found


positive = number(1)
seed = number(0, 2**63 - 1)


def check_output(option: str, path: Path | None) -> None:
    """UserError unless the file that an option names can be written at the end."""
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option} {path}: is a directory; name a file")
    if not path.resolve().parent.is_dir():
        raise UserError(f"{option} {path}: its directory does not exist; create it first")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise UserError(f"{option} {path}: no permission to write there")


def model_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m tools.NAME RUN``, for a command that loads a model."""
    made = parser(name, description)
    made.add_argument("run", type=Path, help="run directory or checkpoint")
    made.add_argument(
        "words",
        nargs="*",
        metavar="parallel.key=value",
        help="spread the model over ranks: parallel.tensor=T, pipeline=P, data=D (default 1 each)",
    )
    add_weights_option(made)
    return made


def add_weights_option(made: argparse.ArgumentParser) -> None:
    """``--weights``, for a command that loads a model."""
    made.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="averaged over training (default), or as they were last",
    )


def add_batch_and_seed(made: argparse.ArgumentParser, batch: int, *, of: str, draws: str) -> None:
    """``--batch`` and ``--seed``, for a command that draws from a model.

    Args:
        batch: the default; of: what there are so many of in a pass; draws: what the seed is of.
    """
    made.add_argument(
        "--batch", type=positive, default=batch, help=f"{of} per forward pass (default {batch})"
    )
    made.add_argument("--seed", type=seed, default=0, help=f"of {draws} (default 0)")


Work = Callable[["Loaded", argparse.Namespace], int]


def with_model(work: Work, arguments: argparse.Namespace) -> int:
    """``work(loaded, arguments)`` in this process, or on the ranks that the words ask for.

    Args:
        work: a function of a module, which every rank imports by name.
    """
    from pretrain.checkpoint.weights import check_layout, load_denoiser

    layout = _layout(arguments.words)
    world = launch.external_world(os.environ)
    check_layout(arguments.run, layout)
    size = layout.tensor * layout.pipeline
    ranks = world.size if world else size * (layout.data or 1)
    if ranks % size or layout.data not in (None, ranks // size):
        raise UserError(f"{ranks} ranks are not data x tensor x pipeline of {layout}")
    if world is not None:
        return on_rank(world, work, arguments, layout)
    if ranks > 1:
        device.check("auto", ranks)
        launch.preload(tensor=layout.tensor > 1)
        threads = launch.num_threads(os.environ)
        return launch.run_local(ranks, on_rank, work, arguments, layout, threads=threads)
    return work(load_denoiser(arguments.run, arguments.weights, best_device()), arguments)


def on_rank(world: World, work: Work, arguments: argparse.Namespace, layout: ParallelConfig) -> int:
    """One rank's part of :func:`with_model`."""
    from pretrain.checkpoint.weights import load_denoiser
    from pretrain.parallel.mesh import Mesh

    mesh = Mesh(world, tensor=layout.tensor, pipeline=layout.pipeline)
    loaded = load_denoiser(arguments.run, arguments.weights, mesh.device, layout=layout, mesh=mesh)
    code = work(loaded, arguments)
    mesh.barrier()
    mesh.close()
    return code


def _layout(words: list[str]) -> ParallelConfig:
    given = merged([], words)
    others = sorted(given.keys() - {"parallel"})
    if others:
        raise UserError(f"only parallel.* can be set here, not {', '.join(others)}")
    return validate(ParallelConfig, given.get("parallel", {}), where="the words after RUN")


def best_device() -> "torch.device":
    """The first GPU, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
