"""The state of an objective (``State``: tensors by name) as a safetensors file of a checkpoint.

Values are kept bit for bit, in any dtype; an objective without state has no such file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from configs.disk import flush
from configs.errors import UserError
from model.objectives import NO_STATE, State
from pretrain.checkpoint import manifest, store
from pretrain.checkpoint.manifest import File

NAME = "objective.safetensors"

_FORMER = "objective"
"""Key of state.json under which older versions kept the state, as JSON."""


def copied(state: State) -> State:
    """A contiguous copy in host memory."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def write(folder: Path, state: State) -> dict[str, File]:
    """Write the file and flush it to the disk; returns its entry of the manifest, if any."""
    if not state:
        return {}
    file = folder / NAME
    save_file(dict(copied(state)), file, metadata={"format": "pt"})
    flush(file)
    return {NAME: {"bytes": file.stat().st_size, "sha256": store.sha256(file)}}


def read(path: Path, files: Mapping[str, File], plain: Mapping[str, Any]) -> State:
    """The objective's state in a checkpoint, its checksum verified.

    Args:
        files: of the manifest.
        plain: contents of state.json.

    Raises:
        UserError: the file is damaged, or an older version saved the state.
    """
    if plain.get(_FORMER):
        raise UserError(
            f"{path} was saved by an older version, which kept the objective's state in "
            "state.json: go on with that version, or export the weights with it (`python -m "
            "tools.convert to-hf`) and bring them in with this one (`from-hf`)"
        )
    if NAME not in files:
        return NO_STATE
    return parsed(manifest.sound_bytes(path, NAME, files), path / NAME)


def parsed(data: bytes, file: Path) -> State:
    """The tensors in the bytes of a safetensors file; raises UserError where it is none."""
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error})") from error
