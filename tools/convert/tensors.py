"""Lazy collections of named tensors: the common form of all conversions.

A model is never in memory as a whole. A file, a checkpoint and a conversion of another such
collection look alike: names and shapes at once, each value when its turn comes.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.errors import UserError
from pretrain.checkpoint.reader import Reader
from pretrain.parallel.ranges import FlatRange
from tools.convert import pickled

Shape = tuple[int, ...]

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a directory's weights; an index beside them lists shards."""


@dataclass(frozen=True)
class Tensors:
    """A collection of named tensors.

    Args:
        shapes: by name, in the order of the source.
        read: a tensor by its name, float32 on the CPU.
        origin: what to call the collection in an error.
    """

    shapes: Mapping[str, Shape]
    read: Callable[[str], Tensor]
    origin: str

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Each name and value, one at a time."""
        return ((name, self.read(name)) for name in self.shapes)

    def renamed(self, names: Mapping[str, str]) -> "Tensors":
        """The same tensors under other names, by new name."""
        return Tensors(
            {new: self.shapes[old] for new, old in names.items()},
            lambda new: self.read(names[new]),
            self.origin,
        )

    def double(self) -> "Tensors":
        """The same values in float64, for what is computed of them."""
        return Tensors(self.shapes, lambda name: self.read(name).double(), self.origin)


def of_checkpoint(reader: Reader, kind: str) -> Tensors:
    """One kind (master, ema) of a checkpoint of ours."""
    shapes = reader.shapes(kind)

    def read(name: str) -> Tensor:
        return reader.read(kind, FlatRange.whole(name, shapes[name])).view(shapes[name])

    return Tensors(shapes, read, str(reader.path))


def of_dict(values: Mapping[str, Tensor], origin: str) -> Tensors:
    """A collection of tensors in memory."""
    return Tensors(
        {name: tuple(value.shape) for name, value in values.items()},
        lambda name: values[name].float(),
        origin,
    )


def of_path(path: Path, *, ema: bool = False) -> Tensors:
    """The weights of a file (.safetensors, .bin, .pt, .ckpt) or of a directory with such.

    Args:
        ema: of a .ckpt that keeps an averaged copy as a list, that copy.

    Raises:
        UserError: there are none, they are incomplete, or they need more than tensors.
    """
    if path.is_dir():
        return _of_directory(path, ema)
    if not path.exists():
        raise UserError(f"{path}: no such file or directory")
    if path.suffix == ".safetensors":
        return _of_safetensors({path.name: path}, path)
    return of_dict(pickled.state_dict(path, ema=ema), str(path))


def _of_directory(path: Path, ema: bool) -> Tensors:
    for name in WEIGHT_FILES:
        index = path / f"{name}.index.json"
        if index.exists():
            where = _weight_map(index)
            files = sorted(set(where.values()))
            missing = [file for file in files if not (path / file).is_file()]
            if missing or not files:
                raise UserError(
                    f"{path} is not whole: missing {', '.join(missing) or 'all shards'}"
                )
            if name.endswith(".safetensors"):
                found = _of_safetensors({file: path / file for file in files}, path)
                _check_index(found, where)
                return found
            values: dict[str, Tensor] = {}
            for file in files:
                values |= pickled.state_dict(path / file, ema=False)
            return of_dict(values, str(path))
        if (path / name).exists():
            return replace(of_path(path / name, ema=ema), origin=str(path))
    raise UserError(f"{path} holds no weights: neither {' nor '.join(WEIGHT_FILES)}, nor shards")


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor; UserError where one lies elsewhere, or it is no such map."""
    found = json_file(index).get("weight_map", {})
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise UserError(f"{index}: weight_map is not a file name for each tensor")
    for name, file in found.items():
        if file in ("", ".", "..") or set(file) & {"/", "\\", "\0"}:
            raise UserError(
                f"{index}: weight_map has {name} in {file!r}; shards lie beside the index, by "
                "their bare names"
            )
    return found


def _check_index(found: Tensors, wanted: Mapping[str, str]) -> None:
    missing = sorted(wanted.keys() - found.shapes.keys())
    if missing:
        raise UserError(f"{found.origin} is not whole: no tensor {', '.join(missing)}")


def _of_safetensors(files: Mapping[str, Path], origin: Path) -> Tensors:
    shapes: dict[str, Shape] = {}
    where: dict[str, Path] = {}
    for path in files.values():
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dictionary
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
                    where[name] = path
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read, and may be half-written: {error}") from error

    def read(name: str) -> Tensor:
        # Opened anew for each tensor: what a mapping has touched counts as memory in use.
        with safe_open(where[name], framework="pt") as opened:
            return torch.empty(shapes[name]).copy_(opened.get_tensor(name))

    return Tensors(shapes, read, str(origin))


def json_file(path: Path) -> dict[str, Any]:
    """A JSON object; UserError where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} cannot be read: it is nested too deeply") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object")
    return found
