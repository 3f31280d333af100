"""What an objective has learnt of its own losses, as a file of a checkpoint.

Tensors by name, of any dtype, bit for bit; there is no such file where nothing is learnt.
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
"""The key of state.json under which former versions kept it, as JSON."""


def copied(state: State) -> State:
    """A copy in host memory, as a file can hold it."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def write(folder: Path, state: State) -> dict[str, File]:
    """Write the file, down to the disk; what the manifest is to say of it, if there is one."""
    if not state:
        return {}
    file = folder / NAME
    save_file(dict(copied(state)), file, metadata={"format": "pt"})
    flush(file)
    return {NAME: {"bytes": file.stat().st_size, "sha256": store.sha256(file)}}


def read(path: Path, files: Mapping[str, File], plain: Mapping[str, Any]) -> State:
    """The state in a checkpoint whose files these are; it is compared with its checksum.

    Args:
        plain: what state.json holds.

    Raises:
        UserError: it is damaged, or in the form of former versions.
    """
    if plain.get(_FORMER):
        raise UserError(
            f"{path} was saved by a former version, which kept what the objective has learnt in "
            "state.json: go on with that version, or export the weights with it (`python -m "
            "tools.convert to-hf`) and bring them in with this one (`from-hf`)"
        )
    if NAME not in files:
        return NO_STATE
    return parsed(manifest.sound_bytes(path, NAME, files), path / NAME)


def parsed(data: bytes, file: Path) -> State:
    """The tensors in the bytes of such a file; UserError where it is none."""
    try:
        return load(data)
    except SafetensorError as error:
        raise UserError(f"{file} is no safetensors file ({error})") from error
