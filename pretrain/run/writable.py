"""Checks that a run directory can be created, before any rank is started."""

import os
import tempfile
from pathlib import Path

from configs.errors import UserError


def check(path: Path) -> None:
    """UserError unless ``path`` is a writable directory, or can be created."""
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        kind = "a link to nothing" if there.is_symlink() and not there.exists() else "a file"
        raise UserError(f"run_dir {path}: {there} is {kind}; choose another run_dir=PATH")
    _check_names(path, there)
    try:
        if there != path:
            # Permissions, quotas and read-only mounts are found by creating a directory only.
            os.rmdir(tempfile.mkdtemp(dir=there, prefix=".palimpsest-"))
        elif not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(None, "no permission to write there")
    except OSError as error:
        raise UserError(
            f"run_dir {path} cannot be made: {there}: {error.strerror}; choose another run_dir=PATH"
        ) from error


def _check_names(path: Path, there: Path) -> None:
    """UserError where a name, or the path, is too long for the file system."""
    longest, name = os.pathconf(there, "PC_NAME_MAX"), max(path.parts, key=_length, default="")
    if _length(name) > longest:
        raise UserError(
            f"run_dir: a name of {_length(name):,} bytes ({name[:40]}...) is longer than the "
            f"{longest} that the file system takes; choose another run_dir=PATH"
        )
    # Files in a run directory have longer paths: those of checkpoints are the longest.
    if _length(str(path.absolute())) + 128 > os.pathconf(there, "PC_PATH_MAX"):
        raise UserError("run_dir: the whole path is too long; choose another run_dir=PATH")


def _length(name: str) -> int:
    return len(os.fsencode(name))
