"""`checkpoint`: how long training waits for a save, and what saving and loading take.

Two ranks under ZeRO 1 save a model's masters, both moments and the average several times.
`stall` is the call that begins a save, all that training waits for; `save` is the same call
and the wait until the checkpoint is committed, as if saving were not asynchronous. Then it
is loaded, under the same layout and under tensor parallelism, checksums included. Files
just written are read from the system's cache: a first load after a pause is slower.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.config import CheckpointConfig
from pretrain.config import RunConfig
from pretrain.launch.pool import Pool
from pretrain.parallel.config import ParallelConfig
from tools.bench.measure import machine_facts
from tools.bench.options import Shape, conclude, new_parser
from tools.bench.whole_step import run_config
from tools.command import positive

if TYPE_CHECKING:
    from tools.bench.checkpoint_ranks import Loads, Saves

RANKS = 2
MOST_STALL = 0.15
"""The target: the stall of an asynchronous save, over the time of a blocking one."""

BYTES_PER_PARAMETER = 16
"""fp32 masters, two moments and the average."""

TIMEOUT_S = 3600.0
SAVED = ParallelConfig(data=2)
LOADED = {"same layout": SAVED, "tensor 2": ParallelConfig(tensor=2)}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the subcommand and its options."""
    parser = new_parser(subparsers, run, __doc__, steps=None)
    for name, default in (("vocab-size", 8192), ("width", 512), ("layers", 6), ("heads", 8)):
        parser.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar="N",
            help=f"of the model (default {default})",
        )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="write there (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print a table, write JSON; returns the exit status.

    Raises:
        ValueError: a machine with too few GPUs, or weights that come back changed.
    """
    if torch.cuda.is_available() and torch.cuda.device_count() < RANKS:
        raise UserError(f"checkpoint needs {RANKS} GPUs, or CUDA_VISIBLE_DEVICES= in front of it")
    sizes = {name: getattr(arguments, name) for name in ("vocab_size", "width", "layers", "heads")}
    shape = Shape(name="saved", **sizes)
    config = replace(
        run_config(shape.model, 2, 128, "fp32"), checkpoint=CheckpointConfig(keep_last=1)
    )
    facts = machine_facts(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    scratch = Path(tempfile.mkdtemp(prefix="palimpsest-bench-", dir=arguments.directory))
    try:
        with Pool(RANKS) as pool, tqdm(total=3, unit="round", desc="bench checkpoint") as bar:
            found = _measure(pool, config, scratch, arguments.repeats, bar.update)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return conclude(arguments, _table(found), facts, missed=not found["met"], **found)


def _measure(
    pool: Pool, config: RunConfig, directory: Path, repeats: int, advance: Callable[[], object]
) -> dict[str, Any]:
    """All figures; of every call that of the slowest rank."""
    try:
        from tools.bench import checkpoint_ranks
    except ModuleNotFoundError as error:
        raise UserError(
            f"checkpoint needs {error.name}, which is not installed: run `pip install -e .`"
        ) from error
    config = replace(config, parallel=SAVED)
    saves: list[Saves] = pool.run(
        RANKS, checkpoint_ranks.save, config, directory, repeats, timeout_s=TIMEOUT_S
    )
    advance()
    first_stall, *stall = _slowest([rank.stall for rank in saves])
    first_blocking, *blocking = _slowest([rank.blocking for rank in saves])
    loads = {}
    for name, layout in LOADED.items():
        there = replace(config, parallel=layout)
        ranks: list[list[Loads]] = pool.run(
            RANKS, checkpoint_ranks.load, there, directory, repeats, timeout_s=TIMEOUT_S
        )
        _refuse_other_weights(name, [rank[-1].digest for rank in ranks], saves)
        loads[name] = {
            "seconds": _slowest([[one.load for one in rank] for rank in ranks]),
            "verify_seconds": _slowest([[one.verify for one in rank] for rank in ranks]),
        }
        advance()
    (newest,) = store.committed(directory)
    sizes = {file.name: file.stat().st_size for file in newest.iterdir()}
    parameters = sum(rank.parameters for rank in saves)
    share = median(part / whole for part, whole in zip(stall, blocking, strict=True))
    return {
        "parameters": parameters,
        "ranks": RANKS,
        "stall_seconds": stall,
        "save_seconds": blocking,
        "first_stall_seconds": first_stall,
        "first_save_seconds": first_blocking,
        "loads": loads,
        "files": sizes,
        "bytes_per_parameter": sum(sizes.values()) / parameters,
        "share": share,
        "target": MOST_STALL,
        "met": share <= MOST_STALL,
    }


def _slowest(ranks: Sequence[Sequence[float]]) -> list[float]:
    return [max(times) for times in zip(*ranks, strict=True)]


def _refuse_other_weights(name: str, digests: Sequence[float], saves: Sequence["Saves"]) -> None:
    expected, got = sum(rank.digest for rank in saves), sum(digests)
    if not abs(got - expected) <= 1e-9 * expected:
        raise UserError(
            f"{name}: the weights' squares sum up to {got}, but to {expected} when they were "
            "saved: one of the two is wrong, so their times mean nothing"
        )


def _table(found: dict[str, Any]) -> str:
    size = sum(found["files"].values())
    save = median(found["save_seconds"])

    def row(name: str, seconds: float, more: str = "") -> str:
        return f"{name:<22}{1e3 * seconds:>9.1f} ms  {size / 1e6 / seconds:>9,.0f} MB/s  {more}"

    tick = "✓" if found["met"] else "✗"
    goal = f"{found['share']:.1%} of a save, target <={found['target']:.0%} {tick}"
    lines = [
        f"{found['parameters'] / 1e6:.1f} M parameters, {found['ranks']} ranks, "
        f"{len(found['files'])} files, {size / 1e6:,.1f} MB: "
        f"{found['bytes_per_parameter']:.3f} bytes per parameter of {BYTES_PER_PARAMETER}",
        row("stall", median(found["stall_seconds"]), goal),
        row("stall of the first", found["first_stall_seconds"], "allocates the host's copy"),
        row("save", save, "begun, written, committed"),
        row("save, the first", found["first_save_seconds"]),
    ]
    for name, load in found["loads"].items():
        verify = 1e3 * median(load["verify_seconds"])
        lines.append(
            row(f"load, {name}", median(load["seconds"]), f"{verify:.1f} ms of it checksums")
        )
    return "\n".join(lines)
