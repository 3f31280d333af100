"""A directory of checkpoints: what is whole, what is newest, what goes.

    step-00000020/
      manifest.json            format, sizes and checksums of all other files
      state.json               step and plain data of the run
      index.json               of every tensor: its shape, and in which file which box is
      rank-00000.safetensors   the boxes whose masters rank 0 owned
      ...

A checkpoint is written aside, in the staging of one attempt, and committed by one rename:
a directory without its manifest is no checkpoint. Nothing here is a pickle, and nothing
that cannot be read is ever deleted.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import RunError, UserError

FORMAT = 4
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")
_STAGING = ".attempt-"
_LEFT = (".pruned-", ".stale-")


def path_of(directory: Path, step: int) -> Path:
    """The checkpoint of ``step`` in a directory of checkpoints."""
    return directory / f"step-{step:08d}"


def staging_of(directory: Path, attempt: int, step: int) -> Path:
    """Where an attempt writes the checkpoint of ``step`` before it is one."""
    return directory / f"{_STAGING}{attempt}" / path_of(directory, step).name


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())


def newest(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are there at their sizes, and why not a newer one."""
    problems = []
    for path in reversed(committed(directory)):
        try:
            check(path)
        except UserError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def check(path: Path) -> None:
    """UserError unless the manifest is there and every file has the size it names."""
    for name, facts in manifest(path)["files"].items():
        file = path / name
        if not file.exists():
            raise UserError(f"{path} is not whole: {name} is missing")
        if file.stat().st_size != facts["bytes"]:
            raise UserError(
                f"{path} is not whole: {name} has {file.stat().st_size} bytes, not {facts['bytes']}"
            )


def damage(path: Path, share: int = 0, shares: int = 1) -> str | None:
    """What is wrong with a checkpoint, every byte of its files read; None if nothing is.

    Args:
        share: read only every ``shares``-th file, from number ``share`` on.
    """
    try:
        check(path)
        for name, facts in sorted(manifest(path)["files"].items())[share::shares]:
            if sha256(path / name) != facts["sha256"]:
                return f"{path} is damaged: {name} does not have the checksum it was written with"
    except (UserError, OSError) as error:
        return str(error)
    return None


def manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        UserError: it is not there, unreadable, or of another format.
    """
    try:
        found = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} is no checkpoint: it has no {MANIFEST}") from error
    except ValueError as error:
        raise UserError(f"{path} is not whole: {MANIFEST} is unreadable") from error
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {found.get('format')}; this version reads {FORMAT}"
        )
    return dict(found)


def sha256(file: Path) -> str:
    """Checksum of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit(staging: Path, directory: Path, files: Mapping[str, Mapping[str, Any]]) -> Path:
    """Complete what lies in ``staging`` with a manifest of ``files``, and rename it into place."""
    final = directory / staging.name
    text = json.dumps({"format": FORMAT, "files": files}, indent=2)
    write(staging / MANIFEST, text)
    flush(staging)
    if final.exists():
        # Only a resume from an older step, its newer neighbour being broken, comes here.
        final.rename(final.with_name(f".replaced-{final.name}-{time.time_ns()}"))
    staging.rename(final)
    flush(directory)
    return final


def write(file: Path, text: str) -> None:
    """Write a text file, down to the disk."""
    file.write_text(text, encoding="utf-8")
    flush(file)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(directory: Path, keep: set[Path]) -> None:
    """Remove the whole checkpoints that are not in ``keep``, each by one rename first."""
    for path in whole(directory):
        if path not in keep:
            doomed = path.with_name(f".pruned-{path.name}")
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def whole(directory: Path) -> list[Path]:
    """The committed checkpoints whose files are there at their sizes, oldest first."""
    found = []
    for path in committed(directory):
        try:
            check(path)
        except UserError:
            continue
        found.append(path)
    return found


def fence(directory: Path, attempt: int) -> None:
    """Make the place where an attempt stages its saves, and take that of earlier ones away.

    An earlier attempt that still lives somewhere can then neither commit nor begin a save:
    saves make no place of that kind. What attempts and prunings left behind is removed.

    Raises:
        RunError: a newer attempt has been here first; this one is the earlier.
    """
    if any(number > attempt for number in _attempts(directory)):
        raise RunError(f"a newer attempt than {attempt} has begun; this one leaves")
    (directory / f"{_STAGING}{attempt}").mkdir(parents=True, exist_ok=True)
    for path in list(directory.iterdir()):
        if path.name.startswith(_STAGING) and path.name != f"{_STAGING}{attempt}":
            path = path.rename(path.with_name(f".stale-{path.name[1:]}-{time.time_ns()}"))
        if path.name.startswith(_LEFT):
            shutil.rmtree(path, ignore_errors=True)


def _attempts(directory: Path) -> list[int]:
    """The attempts that have a place for their saves."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.name.startswith(_STAGING)]
    return [int(name.removeprefix(_STAGING)) for name in names]


def leave(directory: Path, attempt: int) -> None:
    """At the end of an attempt, when no save is in flight."""
    with contextlib.suppress(OSError):
        (directory / f"{_STAGING}{attempt}").rmdir()
