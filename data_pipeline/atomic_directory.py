"""Directories that appear whole or not at all.

A directory is built under a hidden sibling name and renamed when complete. A crash leaves
the sibling, which nothing opens; an exception, Ctrl-C included, leaves nothing. Where another
is replaced, both change places in one step if the system can do that; what is removed then are
the files that the caller knows for its own, and nothing else.
"""

import ctypes
import glob
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.disk import flush
from configs.errors import UserError

_log = logging.getLogger(__name__)


@contextmanager
def atomic_directory(
    final: Path, *, own_files: Callable[[Path], set[str]] | None = None
) -> Iterator[Path]:
    """Yield an empty directory that becomes `final` when the block ends without an exception.

    Args:
        own_files: allows to replace what is there: the names of all files in a directory that
            may be removed, or UserError where it may not be.

    Raises:
        UserError: `final` exists, is not empty and may not be replaced (checked before the
            block and, should another process have been faster, after it), or cannot be made.
    """
    _check_place(final, own_files)
    staging = _sibling(final, "partial")
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{final}: cannot be written ({error.strerror})") from error
    built = staging.stat().st_ino
    try:
        yield staging
        _flush(staging)
        own = _check_place(final, own_files)
        if own:
            _replace(final, staging, own)
        else:
            try:
                staging.rename(final)
            except OSError:
                _check_place(final, None)
                raise
    except BaseException:
        # Once they have changed places, the old directory has that name.
        if staging.exists() and staging.stat().st_ino == built:
            shutil.rmtree(staging, ignore_errors=True)
        raise


def leftovers(final: Path) -> list[Path]:
    """What killed runs left beside `final` (or what others are building there right now)."""
    return sorted(
        path
        for kind in ("partial", "old")
        for path in final.parent.glob(f".{glob.escape(final.name)}.{kind}-*")
    )


def _sibling(final: Path, kind: str) -> Path:
    return final.with_name(f".{final.name}.{kind}-{uuid.uuid4().hex[:8]}")


def _check_place(final: Path, own_files: Callable[[Path], set[str]] | None) -> set[str]:
    """The files in `final` that are to be replaced; none where there is nothing.

    Raises:
        UserError: something is there that may not be replaced.
    """
    if final.is_symlink():
        raise UserError(f"{final}: is a link; remove it, or choose another name")
    # An empty directory is as good as none: rename replaces it.
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return set()
    if own_files is None:
        raise UserError(f"{final}: exists already; remove it, or choose another name")
    return own_files(final)


def _replace(final: Path, staging: Path, own: set[str]) -> None:
    """Put `staging` in the place of `final`, whose files `own` are then removed."""
    old = _sibling(final, "old")
    if _changed_places(staging, final):
        staging.rename(old)
    else:
        # Killed between these two, the old directory is whole under its hidden name.
        final.rename(old)
        try:
            staging.rename(final)
        except BaseException:
            old.rename(final)
            raise
    flush(final.parent)
    for name in own:
        (old / name).unlink(missing_ok=True)
    try:
        old.rmdir()
    except OSError:
        _log.warning("note: %s holds what came into %s meanwhile", old, final)


def _changed_places(one: Path, other: Path) -> bool:
    """Whether two directories changed their names in one step (Linux; not every file system)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    current_directory, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = os.fsencode(one), os.fsencode(other)
    status = rename(current_directory, names[0], current_directory, names[1], exchange)
    return bool(status == 0)


def _flush(directory: Path) -> None:
    """Bring everything to the disk before the rename can make it visible."""
    for path in [*directory.rglob("*"), directory]:
        flush(path)
