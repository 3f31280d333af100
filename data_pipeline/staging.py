"""Directories that appear whole or not at all.

A directory is built under a hidden sibling name and renamed when complete. A crash leaves
the sibling, which nothing opens; an exception, Ctrl-C included, leaves nothing.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError


@contextmanager
def staged_directory(final: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes `final` when the block ends without an exception.

    Raises:
        UserError: `final` exists, is not empty and may not be overwritten (checked before the
            block and, should another process have been faster, after it), or cannot be made.
    """
    if not overwrite:
        _refuse_existing(final)
    staging = final.with_name(f".{final.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{final}: cannot be written ({error.strerror})") from error
    try:
        yield staging
        _flush(staging)
        if overwrite and final.exists():
            _replace(final, staging)
        else:
            try:
                staging.rename(final)
            except OSError:
                _refuse_existing(final)
                raise
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def leftovers(final: Path) -> list[Path]:
    """What killed runs left beside `final` (or what others are building there right now)."""
    return sorted(final.parent.glob(f".{final.name}.partial-*"))


def _refuse_existing(final: Path) -> None:
    # An empty directory is as good as none: rename replaces it.
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UserError(f"{final}: exists already; remove it, overwrite it or choose another name")


def _replace(final: Path, staging: Path) -> None:
    """Two renames: killed between them, the old directory is whole under its hidden name."""
    old = final.with_name(f".{final.name}.old-{uuid.uuid4().hex[:8]}")
    final.rename(old)
    staging.rename(final)
    shutil.rmtree(old)


def _flush(directory: Path) -> None:
    """Bring everything to the disk before the rename can make it visible."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
