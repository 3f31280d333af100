"""Reading weights that PyTorch pickled: tensors and plain data only, never objects of a program.

Everything goes through ``weights_only=True``. A file that holds more, as checkpoints of
training frameworks do, is refused with the names of what it holds; :func:`read_without` reads
the tensors of such a file with an inert stand-in for every such name, so that no code of the
file is run and no module that it names is imported. Lightning keeps the weights under
``state_dict``, and MDLM's code its average under ``ema``: a list, in the order of the
parameters, which is that of the state dict without its buffers.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError

BUFFERS = ("inv_freq", "position_ids", "num_batches_tracked")
"""Endings of what a state dict holds besides parameters."""


def state_dict(path: Path, *, ema: bool) -> dict[str, Tensor]:
    """The weights of a pickled file, by name.

    Args:
        ema: the averaged ones, of a file that has them.

    Raises:
        UserError: the file needs more than ``weights_only=True`` allows, is damaged, or holds
            no weights.
    """
    return weights_of(_load(path), path, ema=ema)


def weights_of(found: Any, path: Path, *, ema: bool) -> dict[str, Tensor]:
    """The weights among what a file held."""
    raw = found
    for key in ("state_dict", "model"):
        if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping):
            raw = raw[key]
    tensors = {}
    if isinstance(raw, Mapping):
        tensors = {str(k): v for k, v in raw.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no weights: expected a dictionary of tensors")
    if not ema:
        return tensors
    shadow = found.get("ema") if isinstance(found, Mapping) else None
    values = shadow.get("shadow_params") if isinstance(shadow, Mapping) else None
    if not isinstance(values, list):
        raise UserError(f"{path} holds no averaged weights: leave out --weights ema")
    names = [name for name in tensors if not name.endswith(BUFFERS)]
    shapes = [tuple(tensors[name].shape) for name in names]
    if shapes != [tuple(value.shape) for value in values]:
        raise UserError(
            f"{path}: the {len(values)} averaged weights are not those of the "
            f"{len(names)} parameters of its state_dict"
        )
    return dict(zip(names, values, strict=True))


def _load(path: Path) -> Any:
    names = foreign_names(path)
    if names:
        raise UserError(
            f"{path} holds more than tensors and plain data ({', '.join(names)}), which is not "
            "loaded; take its weights out first: "
            f"`python -m tools.convert strip {path} OUT.safetensors`"
        )
    return _read(path)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # of many kinds, some of them PyTorch's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # its advice is to trust the file, which we do not
            reason = "it is built of other objects"
        raise UserError(
            f"{path} cannot be read as tensors and plain data, and may be half-written: {reason}"
        ) from error


def _is_zip(path: Path) -> bool:
    """Whether the file is of the form that can be mapped instead of read."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def foreign_names(path: Path) -> list[str]:
    """Classes and functions that a file names beyond those of plain tensors; [] if unknown."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # no file of PyTorch's: reading it raises the error
        return []


def read_without(path: Path) -> tuple[Any, list[str]]:
    """What a file holds, a stand-in in place of every foreign object, and their names.

    Raises:
        UserError: it is no such file.
    """
    names = foreign_names(path)
    mappings: set[str] = set()
    while True:
        made = {name: type(_type_name(name), (_StandIn,), {}) for name in names}
        inert: list[Any] = [
            (_Mapping if name in mappings else kind, name) for name, kind in made.items()
        ]
        try:
            with torch.serialization.safe_globals(inert):
                return _read(path), names
        except UserError as error:
            # A subclass of dict takes its items one by one: found out by what was refused.
            refused = str(error.__cause__)
            found = {name for name in names if f"'{__name__}.{_type_name(name)}'" in refused}
            if found <= mappings:
                raise
            mappings |= found


def _type_name(name: str) -> str:
    return "StandIn_" + name.replace(".", "_")


class _StandIn:
    """Stand-in for a foreign object: accepts its arguments and state, and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "_StandIn":
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Mapping:
    """Stand-in for a subclass of dict."""

    def __new__(cls, *args: object, **kwargs: object) -> "OrderedDict[object, object]":  # type: ignore[misc]
        return OrderedDict()
