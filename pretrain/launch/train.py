"""One start of a run on one rank: mesh, attempt, heartbeat and watchdog around the trainer.

Where it fails, the run's status becomes ``failed``, with the error as its reason.
"""

import contextlib
import errno
from contextlib import nullcontext
from pathlib import Path

from configs.errors import RunError
from configs.exit_codes import STOPPED
from pretrain.config import RunConfig
from pretrain.hooks import Hooks
from pretrain.launch import preemption
from pretrain.launch.heartbeat import Heartbeat
from pretrain.launch.local import World
from pretrain.launch.watchdog import Watchdog
from pretrain.parallel.mesh import Mesh
from pretrain.run import console
from pretrain.run.attempt import Attempt
from pretrain.run.directory import RunDirectory
from pretrain.trainer import Trainer


def train(world: World, config: RunConfig, path: Path, hooks: Hooks = ()) -> int:
    """Train on one rank, from the run's newest checkpoint on; returns the exit status.

    Raises:
        RunError: the run cannot go on; among other reasons, its disk is full or read-only.
    """
    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    try:
        return _train(mesh, config, RunDirectory(path), hooks)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise RunError(
            f"{path}: {error}; nothing committed is lost: repair it, and start the run again"
        ) from error


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_DISK |= {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}
"""Errors of a disk that is full, read-only, not ours or broken, or that holds other things."""


def _train(mesh: Mesh, config: RunConfig, directory: RunDirectory, hooks: Hooks) -> int:
    if mesh.any(preemption.reason() is not None):
        # A rank that left alone, during its imports, would block the others.
        if mesh.is_first:
            console.log(preemption.STOPPED_EARLY)
        mesh.barrier()
        mesh.close()
        return STOPPED
    last = directory.last_start() if mesh.is_first else None
    number = max(mesh.all_gather_object(directory.begin(config) if mesh.is_first else 0))
    attempt = Attempt(directory=directory, number=number, writes=mesh.is_first)
    trainer = None
    beating = Heartbeat(directory, number) if mesh.is_first else nullcontext()
    watchdog = Watchdog(mesh.rank, config.watchdog_s, leave=config.watchdog_leave)
    try:
        with beating, watchdog:
            with watchdog.during("its start"):
                trainer = Trainer(config, attempt, mesh, watchdog, hooks)
            if last:
                console.log(last)
            return trainer.run()
    except BaseException as error:
        step = trainer.state.step if trainer else 0
        with contextlib.suppress(OSError):
            attempt.write_status("failed", step, f"{type(error).__name__}: {error}")
        raise
