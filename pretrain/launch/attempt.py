"""One start of a run, on one rank: what stands around the training loop.

It beats, is watched, and where it fails it says so in the run's status.
"""

import contextlib
import errno
from contextlib import nullcontext
from pathlib import Path

from configs.errors import RunError
from pretrain.config import RunConfig
from pretrain.launch import preemption
from pretrain.launch.heartbeat import Heartbeat
from pretrain.launch.local import World
from pretrain.launch.watchdog import Watchdog
from pretrain.parallel.mesh import Mesh
from pretrain.run import console
from pretrain.run.directory import RunDirectory
from pretrain.trainer import Trainer, asked_to_stop


def train(world: World, config: RunConfig, path: Path) -> int:
    """One rank's part of a run, from its newest checkpoint on; returns the exit status."""
    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    try:
        return _train(mesh, config, RunDirectory(path))
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise RunError(
            f"{path}: {error}; nothing committed is lost: mend it, and start the run again"
        ) from error


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_DISK |= {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}
"""What a disk that is full, read-only, not ours or broken says, and one that holds other things."""


def _train(mesh: Mesh, config: RunConfig, directory: RunDirectory) -> int:
    if asked_to_stop(mesh):
        # A rank that left alone, during its imports, would keep the others waiting for it.
        if mesh.is_first:
            console.log(preemption.STOPPED_EARLY)
        mesh.barrier()
        mesh.close()
        return preemption.STOPPED
    last = directory.last_start() if mesh.is_first else None
    attempt = max(mesh.all_gather_object(directory.begin(config) if mesh.is_first else 0))
    trainer = None
    beating = Heartbeat(directory, attempt) if mesh.is_first else nullcontext()
    watchdog = Watchdog(mesh.rank, config.watchdog_s, leave=config.watchdog_leave)
    try:
        with beating, watchdog:
            with watchdog.during("its start"):
                trainer = Trainer(config, directory, mesh, attempt, watchdog)
            if last:
                trainer.progress.log(last)
            return trainer.run()
    except BaseException as error:
        if mesh.is_first:
            step = trainer.step if trainer else 0
            with contextlib.suppress(OSError):
                directory.write_status("failed", step, attempt, f"{type(error).__name__}: {error}")
        raise
