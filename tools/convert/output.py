"""Output of a conversion: written aside, after a check of free space, and renamed when complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from configs.errors import UserError
from pretrain.checkpoint import store

ROOM = 2**20
"""Bytes for everything but the weights."""


@contextmanager
def staged(out: Path, weight_bytes: int) -> Iterator[Path]:
    """A path beside ``out``, which becomes ``out`` at the end, or vanishes after an error.

    Raises:
        UserError: ``out`` is there already, or there is no room or no right to write.
    """
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} is there already; choose another OUT, or remove it")
    folder = out.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}") from error
    require_room(folder, weight_bytes)
    aside = folder / f".{out.name}.{os.getpid()}"
    _remove(aside)
    try:
        yield aside
        if out.is_dir():
            out.rmdir()
        aside.rename(out)
        store.flush(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} could not be written: {error}") from error
    finally:
        _remove(aside)


def require_room(folder: Path, weight_bytes: int) -> None:
    """UserError unless the disk has room for the weights."""
    needed, free = weight_bytes + ROOM, shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder} has {free / 2**30:.2f} GiB free, and the result takes "
            f"{needed / 2**30:.2f} GiB: free some, or choose another OUT"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
