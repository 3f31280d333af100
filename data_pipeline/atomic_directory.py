"""Directories that appear complete or not at all.

A directory is built under a hidden sibling name and renamed when complete. A crash leaves
the sibling, which nothing opens; an exception, Ctrl-C included, leaves nothing. To replace an
existing directory, the two are exchanged in one step if the system can do that; then only the
files that the caller lists as its own are removed from the old one.
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
        # After the exchange, the old directory has that name.
        if staging.exists() and staging.stat().st_ino == built:
            shutil.rmtree(staging, ignore_errors=True)
        raise


def leftovers(final: Path) -> list[Path]:
    """Hidden siblings of `final`: left by killed processes, or being built right now."""
    return sorted(
        path
        for kind in ("partial", "old")
        for path in final.parent.glob(f".{glob.escape(final.name)}.{kind}-*")
    )


def _sibling(final: Path, kind: str) -> Path:
    return final.with_name(f".{final.name}.{kind}-{uuid.uuid4().hex[:8]}")


def _check_place(final: Path, own_files: Callable[[Path], set[str]] | None) -> set[str]:
    """The files in `final` to be replaced; empty if there are none.

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
    """Move `staging` to the place of `final`, then remove the old files `own`."""
    old = _sibling(final, "old")
    if _exchange(staging, final):
        staging.rename(old)
    else:
        # A crash between these two leaves the old directory complete under its hidden name.
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


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories atomically; False where the system cannot (only Linux can)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    current_directory, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = os.fsencode(one), os.fsencode(other)
    status = rename(current_directory, names[0], current_directory, names[1], exchange)
    return bool(status == 0)


def _flush(directory: Path) -> None:
    """Flush all files and directories below this one, before a rename makes it visible."""
    for path in [*directory.rglob("*"), directory]:
        flush(path)
