"""The directory of a run's checkpoints: atomic commits, integrity checks, the newest one.

    step-00000020/
      manifest.json            format, sizes and checksums of all files
      state.json               step and plain data of the run
      index.json               shape of every tensor, and the file of each of its boxes
      objective.safetensors    state of the objective, if it has any
      rank-00000.safetensors   boxes of the ranges that rank 0 owned
      ...

A checkpoint is written in the staging directory of one attempt, and committed by one rename:
a directory without its manifest is no checkpoint. Nothing here is a pickle. Checkpoints that
cannot be read, and directories with other names, are never deleted.
"""

import contextlib
import hashlib
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.disk import flush
from configs.errors import RunError, UserError
from configs.run_files import checkpoint_name, checkpoint_step
from pretrain.checkpoint import contents, manifest
from pretrain.checkpoint.contents import Index, State
from pretrain.checkpoint.manifest import INDEX, STATE, File

MANIFEST = manifest.NAME
_STAGING = re.compile(r"\.attempt-([0-9]+)")
_LEFT = re.compile(r"\.(pruned-step|stale-attempt)-[0-9-]+")


def path_of(directory: Path, step: int) -> Path:
    """The checkpoint of ``step`` in a directory of checkpoints."""
    return directory / checkpoint_name(step)


def staging_of(directory: Path, attempt: int, step: int) -> Path:
    """Where an attempt writes the checkpoint of ``step`` before it is one."""
    return _staging(directory, attempt) / path_of(directory, step).name


def _staging(directory: Path, attempt: int) -> Path:
    return directory / f".attempt-{attempt}"


def committed(directory: Path) -> list[Path]:
    """All committed checkpoints, oldest first: directories of exactly the names that we give."""
    if not directory.is_dir():
        return []
    named = {checkpoint_step(path.name): path for path in directory.iterdir() if path.is_dir()}
    return [named[step] for step in sorted(step for step in named if step is not None)]


def step_of(path: Path) -> int:
    """The step of a committed checkpoint, by its name."""
    step = checkpoint_step(path.name)
    assert step is not None, path
    return step


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The small files of a checkpoint, read and checked.

    Args:
        files: size and checksum of every file, by the manifest.
        state: plain data of the run.
        index: where the values of each tensor lie.
    """

    path: Path
    files: Mapping[str, File]
    state: State
    index: Index


def newest(directory: Path) -> tuple[Path | None, list[str]]:
    """The path of :func:`open_newest`."""
    found, problems = open_newest(directory)
    return (found.path if found else None), problems


def open_newest(directory: Path) -> tuple[Contents | None, list[str]]:
    """The newest checkpoint that passes :func:`in_place`, and what is wrong with newer ones."""
    problems: list[str] = []
    for path in reversed(committed(directory)):
        try:
            return in_place(path), problems
        except UserError as error:
            problems.append(str(error))
    return None, problems


def check(path: Path) -> Contents:
    """Read the small files, each compared with its checksum before it is used.

    Raises:
        UserError: one of them is damaged, or a file is not there at its size. The bytes of
            the tensors are not read.
    """
    files = manifest.read(path)["files"]
    for name, facts in files.items():
        try:
            found = (path / name).stat()
        except OSError as error:
            raise UserError(f"{path} is not whole: {name} is missing") from error
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not whole: {name} is no file")
        if found.st_size != facts["bytes"]:
            raise UserError(
                f"{path} is not whole: {name} has {found.st_size} bytes, not {facts['bytes']}"
            )
    return Contents(
        path=path,
        files=files,
        state=contents.state(manifest.checked(path, STATE, files), path),
        index=contents.index(manifest.checked(path, INDEX, files), path, files),
    )


def in_place(path: Path) -> Contents:
    """:func:`check` a checkpoint among others of its run: its name must be that of its step."""
    found = check(path)
    require_own_step(path, found.state)
    return found


def require_own_step(path: Path, state: State) -> None:
    """UserError where a checkpoint has the name of another step.

    Such a copy would be the newest for ever, and every start would begin with it.
    """
    if state["step"] != step_of(path):
        raise UserError(f"{path} is not what its name says: it was saved at step {state['step']}")


def damage(path: Path, share: int = 0, shares: int = 1) -> str | None:
    """The error of :func:`check` or :func:`require_sound`; None where a checkpoint is sound."""
    try:
        require_sound(check(path), share, shares)
    except (UserError, OSError) as error:
        return str(error)
    return None


def require_sound(found: Contents, share: int = 0, shares: int = 1) -> None:
    """UserError unless every byte of the other files is as it was written.

    Args:
        share: read only every ``shares``-th of these files, from number ``share`` on.
    """
    for name in sorted(found.files.keys() - {STATE, INDEX})[share::shares]:
        require_checksum(found.path, name, found.files[name])


def require_checksum(path: Path, name: str, facts: File) -> None:
    """UserError unless a file of a checkpoint is, in every byte, as it was written."""
    if sha256(path / name) != facts["sha256"]:
        raise UserError(f"{path} is damaged: {name} does not have the checksum it was written with")


def sha256(file: Path) -> str:
    """Checksum of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit(staging: Path, directory: Path, files: Mapping[str, Mapping[str, Any]]) -> Path:
    """Complete what lies in ``staging`` with a manifest of ``files``, and rename it into place."""
    final = directory / staging.name
    write(staging / MANIFEST, manifest.text_of(files))
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


def remove(path: Path) -> None:
    """Remove a checkpoint, by one rename first."""
    doomed = path.with_name(f".pruned-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def fence(directory: Path, attempt: int) -> None:
    """Make the place where an attempt stages its saves, and take that of earlier ones away.

    An earlier attempt that still lives somewhere can then neither commit nor begin a save:
    saves make no place of that kind. What attempts and prunings left behind is removed.

    Raises:
        RunError: a newer attempt has been here first; this one is the earlier.
    """
    if newest_attempt(directory) > attempt:
        raise RunError(f"a newer attempt than {attempt} has begun; this one leaves")
    _staging(directory, attempt).mkdir(parents=True, exist_ok=True)
    for number, path in list(_attempts(directory)):
        if number < attempt:
            path.rename(path.with_name(f".stale-{path.name[1:]}-{time.time_ns()}"))
    for path in list(directory.iterdir()):
        if _LEFT.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def newest_attempt(directory: Path) -> int:
    """The newest attempt that has a place for its saves here; 0 if none has."""
    return max((number for number, _ in _attempts(directory)), default=0)


def _attempts(directory: Path) -> Iterator[tuple[int, Path]]:
    """The attempts that have a place for their saves, and these."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if (name := _STAGING.fullmatch(path.name)) and path.is_dir():
            yield int(name[1]), path


def leave(directory: Path, attempt: int) -> None:
    """At the end of an attempt, when no save is in flight."""
    with contextlib.suppress(OSError):
        _staging(directory, attempt).rmdir()
