"""Starts ranks on this machine, for plain starts, the demo and the tests.

On a CPU ranks are forked from a server process that has imported the engines once, so that
four of them start in about the time of one. Where there may be a GPU each rank is a new process,
as under torchrun: the fork of a process that has called the CUDA runtime cannot use it, and
packages may call it while they are imported.

Ranks are in sessions of their own: a Ctrl-C at the terminal reaches the parent only, which
passes every signal on once. Children start with all requests to stop blocked: they stay blocked in
the server, and a rank records them from its first lines on. A rank whose parent is gone ends by
itself; when one rank fails the others are ended and its traceback is printed first.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from configs.errors import UserError, exit_code
from configs.exit_codes import FAILED, INTERRUPTED, STOPPED, WRONG_INPUT
from pretrain.launch import device, preemption
from pretrain.run import console

GRACE_S = 10.0
"""Seconds that the other ranks may go on after one has failed."""

SERVER_GONE = 255
"""Exit status by multiprocessing where it cannot know it, the server having ended."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank of a process, and how it finds the others.

    Args:
        init_method: of ``torch.distributed.init_process_group``.
        local_size: ranks that share this machine, and so its cores.
        threads: of a rank that computes on a CPU; by default its share of the cores.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    init_method: str
    threads: int | None = None

    @classmethod
    def local(cls, rank: int, size: int, rendezvous: Path, threads: int | None = None) -> "World":
        """One of ``size`` ranks of this machine, which meet by the file ``rendezvous``."""
        return cls(
            rank=rank,
            size=size,
            local_rank=rank,
            local_size=size,
            init_method=f"file://{rendezvous}",
            threads=threads,
        )


def external_world(environ: Mapping[str, str]) -> World | None:
    """The rank that torchrun, or a SLURM task, has assigned; None without a launcher."""
    if "RANK" not in environ:
        return None
    try:
        return World(
            rank=int(environ["RANK"]),
            size=int(environ["WORLD_SIZE"]),
            local_rank=int(environ["LOCAL_RANK"]),
            local_size=int(environ.get("LOCAL_WORLD_SIZE", "1")),
            init_method="env://",
            threads=num_threads(environ),
        )
    except (KeyError, ValueError) as error:
        raise UserError(
            f"RANK is set, but {error} is missing or no number: start with torchrun, "
            "or unset RANK to start ranks here"
        ) from error


def num_threads(environ: Mapping[str, str]) -> int | None:
    """Threads by OMP_NUM_THREADS at the outermost level; None if it holds no number."""
    outermost = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(outermost) if outermost.isdecimal() and int(outermost) else None


PRELOADED = ("pretrain.launch.train", "pretrain.parallel.tensor")
"""Modules that the server imports; the second one is Megatron-core, which takes seconds."""


def preload(*, tensor: bool = False) -> None:
    """Start importing the engines in the server process, while the caller goes on.

    Args:
        tensor: Megatron-core too, which only tensor parallelism needs.
    """
    started = context()
    if isinstance(started, ForkServerContext):
        started.set_forkserver_preload(list(PRELOADED if tensor else PRELOADED[:1]))
        # The tracker's start would unblock what is blocked, so it comes first.
        with preemption.held():
            multiprocessing.resource_tracker.ensure_running()
        with preemption.held():
            multiprocessing.forkserver.ensure_running()


def context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context that starts ranks."""
    if device.may_have_gpu():
        return multiprocessing.get_context("spawn")
    return multiprocessing.get_context("forkserver")


def start(process: BaseProcess) -> None:
    """Start a rank (or the server first), signals blocked until it installs its handlers."""
    with preemption.held():
        multiprocessing.resource_tracker.ensure_running()
    with preemption.held():
        process.start()


def run_local(size: int, target: Callable[..., int], *args: Any, threads: int | None = None) -> int:
    """Run ``target(world, *args)`` on ``size`` ranks of this machine; return the exit status.

    Signals that this process receives (:mod:`pretrain.launch.preemption`) are passed on to all.

    Args:
        threads: of each rank on a CPU; by default its share of the cores.

    Returns:
        The status that the ranks returned, or that of the first one to fail.
    """
    alive_reader, alive_writer = context().Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="palimpsest-") as scratch, alive_writer:
        ranks = []
        for rank in range(size):
            world = World.local(rank, size, Path(scratch) / "rendezvous", threads)
            process = context().Process(
                target=_rank_main,
                args=(world, alive_reader, Path(scratch), target, args),
                name=f"rank-{rank}",
            )
            start(process)
            ranks.append(process)
        try:
            return _watch(ranks, Path(scratch))
        finally:
            for process in ranks:
                process.kill()
                process.join()


def _watch(ranks: Sequence[BaseProcess], scratch: Path) -> int:
    """Wait for all ranks, passing signals on; give up on the others once one has failed."""
    passed = 0
    deadline: float | None = None
    failed: dict[int, int] = {}
    running = dict(enumerate(ranks))
    while running and (deadline is None or time.monotonic() < deadline):
        multiprocessing.connection.wait([p.sentinel for p in running.values()], timeout=0.1)
        for number in preemption.received()[passed:]:
            passed += 1
            for process in running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid or 0, number)
        for rank, process in list(running.items()):
            if process.exitcode is None:
                continue
            del running[rank]
            if process.exitcode not in (0, STOPPED):
                failed[rank] = process.exitcode
                deadline = deadline or time.monotonic() + GRACE_S
    if not failed:
        return max(process.exitcode or 0 for process in ranks)
    rank = _first_to_fail(failed, scratch)
    return _report(rank, failed[rank], scratch)


def _first_to_fail(failed: dict[int, int], scratch: Path) -> int:
    """The rank that failed first.

    That is one that a signal killed, which leaves no error report; else the one whose error
    report is the oldest.
    """
    for rank, code in failed.items():
        if code < 0:
            return rank
    reports = sorted(scratch.glob("rank-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    named = [int(path.stem.removeprefix("rank-")) for path in reports]
    return next((rank for rank in named if rank in failed), next(iter(failed)))


def _report(rank: int, code: int, scratch: Path) -> int:
    report = scratch / f"rank-{rank}.txt"
    if report.exists():
        console.log(report.read_text(encoding="utf-8").rstrip())
    if code in (WRONG_INPUT, INTERRUPTED):
        return code
    if code == SERVER_GONE:
        console.log("the process that started the ranks was killed; the run has ended")
        return FAILED
    how = f"was killed by signal {-code}" if code < 0 else "failed"
    console.log(f"rank {rank} {how}; the run has ended")
    return FAILED


def _rank_main(
    world: World,
    alive: Connection,
    scratch: Path,
    target: Callable[..., int],
    args: tuple[Any, ...],
) -> None:
    """Main function of a rank."""
    os.setsid()
    console.survive()
    preemption.install()
    settle(alive)
    try:
        code = exit_code(
            lambda: target(world, *args),
            log=lambda line: _write_report(scratch, world.rank, line),
            user_errors=(UserError,),
        )
    except BaseException:
        code = FAILED
        _write_report(scratch, world.rank, f"[rank {world.rank}] {traceback.format_exc()}")
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of gloo and wandb may still run; they have nothing left to do.
    os._exit(code)


def _write_report(scratch: Path, rank: int, text: str) -> None:
    with contextlib.suppress(OSError):
        (scratch / f"rank-{rank}.txt").write_text(text, encoding="utf-8")


def settle(alive: Connection) -> None:
    """Prepare a rank's process: end it with its parent, and collect nothing that is imported.

    A collection that walks through all imports takes half a second.
    """
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()
    gc.freeze()


def _leave_with_parent(alive: Connection) -> None:
    """End this process once the other end of ``alive`` is closed."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv_bytes()
    os._exit(1)
