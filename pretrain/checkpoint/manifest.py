"""The manifest of a checkpoint: which files it has, with sizes and checksums, its own included.

Everything that is read of a checkpoint is compared with the manifest before it is used, and the
manifest with its own checksum: its text has to be that which :func:`text_of` makes of its files.
One changed byte, even in white space, is damage.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from configs.errors import UserError

NAME = "manifest.json"
FORMAT = 5
"""Since 5 the manifest has a checksum, and so has every box of every tensor."""

READ = (4, 5)
STATE, INDEX = "state.json", "index.json"


class File(TypedDict):
    """Size and checksum of a file."""

    bytes: int
    sha256: str


class Manifest(TypedDict):
    """Of format 4, which had no checksum of its own, or 5."""

    format: int
    files: dict[str, File]
    sha256: NotRequired[str]


_SHAPE = TypeAdapter(Manifest)


def text_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a manifest in the present format."""
    found = {"format": FORMAT, "files": files}
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    return json.dumps({**found, "sha256": digest}, indent=2) + "\n"


def read(path: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        UserError: it is not there, damaged, or of another format.
    """
    file = path / NAME
    try:
        text = read_bytes(file)
    except FileNotFoundError as error:
        raise UserError(f"{path} is no checkpoint: it has no {NAME}") from error
    except OSError as error:
        raise UserError(f"{path} is no checkpoint: {NAME} cannot be read ({error})") from error
    found = parsed(text, file)
    number = found.get("format") if isinstance(found, dict) else None
    if isinstance(number, int) and number not in READ:
        versions = " and ".join(map(str, READ))
        raise UserError(f"{path} has checkpoint format {number}; this version reads {versions}")
    try:
        manifest = _SHAPE.validate_python(found, strict=True, extra="forbid")
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {NAME} is not what a save writes") from error
    if number == FORMAT:
        is_sound = text_of(manifest["files"]).encode() == text
    else:
        is_sound = "sha256" not in manifest
    if not is_sound:
        raise UserError(f"{path} is damaged: {NAME} does not have the checksum it was written with")
    return manifest


def read_bytes(file: Path) -> bytes:
    """The bytes of a regular file; OSError where it is none, which a pipe would block on."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(f"{file} is a {'directory' if stat.S_ISDIR(mode) else 'special file'}")
    return file.read_bytes()


def parsed(text: bytes, file: Path) -> Any:
    """JSON; UserError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file.parent} is damaged: {file.name} is unreadable ({error})") from error


def checked(path: Path, name: str, files: Mapping[str, File]) -> Any:
    """The JSON of a small file of a checkpoint; raises as :func:`sound_bytes`."""
    return parsed(sound_bytes(path, name, files), path / name)


def sound_bytes(path: Path, name: str, files: Mapping[str, File]) -> bytes:
    """A small file of a checkpoint, read once, and only after its checksum.

    Raises:
        UserError: it is not there, or not what was written.
    """
    if name not in files:
        raise UserError(f"{path} is not whole: its {NAME} names no {name}")
    try:
        found = read_bytes(path / name)
    except OSError as error:
        raise UserError(f"{path} is damaged: {name} cannot be read ({error})") from error
    if hashlib.sha256(found).hexdigest() != files[name]["sha256"]:
        raise UserError(f"{path} is damaged: {name} does not have the checksum it was written with")
    return found
