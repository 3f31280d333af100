"""Reading a checkpoint: any box of any tensor, straight from the files that hold it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.pieces import Piece, to_read
from pretrain.ranges import Range


class Reader:
    """A checkpoint, opened; its files are read only where they are asked for."""

    def __init__(self, path: Path) -> None:
        store.check(path)
        self.path = path
        self.state: dict[str, Any] = _json(path / "state.json")
        self._index: dict[str, dict[str, Any]] = _json(path / "index.json")

    def shapes(self, kind: str = "master") -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of a kind."""
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): tuple(facts["shape"])
            for name, facts in self._index.items()
            if name.startswith(prefix)
        }

    def kinds(self) -> list[str]:
        """What is held of every parameter: master, exp_avg, ..."""
        return sorted({name.partition("/")[0] for name in self._index})

    def weights(self, which: str) -> str:
        """The kind of the averaged (``ema``) or last (``raw``) weights; the one kind there is."""
        return "ema" if which == "ema" and "ema" in self.kinds() else "master"

    def read_into(self, pieces: Mapping[str, Piece]) -> None:
        """Fill pieces, by ``kind/name``, in place.

        Raises:
            UserError: tensors are missing or have other shapes (all are named), or a file
                cannot be read.
        """
        self.require({name: piece.owned.shape for name, piece in pieces.items()})
        metadata = self._metadata(pieces)
        opened: dict[str, Any] = {}
        filled = dict.fromkeys(pieces, 0)
        for item, target in to_read(dict(pieces), metadata):
            name, offset = item.storage_index.fqn, item.storage_index.offset
            assert offset is not None
            file = self._file(name, tuple(offset))
            try:
                if file not in opened:
                    opened[file] = safe_open(self.path / file, framework="pt")
                box = opened[file].get_slice(key(name, tuple(offset)))
                where = zip(item.storage_offsets, item.lengths, strict=True)
                index = tuple(slice(a, a + n) for a, n in where)
                target.copy_(box[index] if index else box[...])
            except (SafetensorError, OSError) as error:
                raise UserError(f"{self.path / file} cannot be read: {error}") from error
            filled[name] += target.numel()
        for name, piece in pieces.items():
            if filled[name] != piece.owned.num:
                raise UserError(
                    f"{self.path} holds {filled[name]} of {piece.owned.num} elements of {name}"
                )

    def read(self, kind: str, wanted: Range) -> Tensor:
        """The elements of ``wanted``, flat ``[num]`` fp32; raises as :meth:`read_into`."""
        value = torch.empty(wanted.num)
        self.read_into({f"{kind}/{wanted.name}": Piece(wanted, value)})
        return value

    def whole(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        """Every parameter whole, one after the other, in its own shape."""
        for name, shape in self.shapes(kind).items():
            yield name, self.read(kind, Range.whole(name, shape)).view(shape)

    def require(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """UserError that names all of these tensors that are missing or have another shape."""
        problems = []
        for name, shape in wanted.items():
            held = self._index.get(name)
            if held is None:
                problems.append(f"{name} is missing")
            elif tuple(held["shape"]) != tuple(shape):
                problems.append(f"{name} has shape {held['shape']}, not {list(shape)}")
        if problems:
            raise UserError(f"{self.path} does not fit:\n  " + "\n  ".join(problems))

    def _metadata(self, names: Mapping[str, Piece]) -> Metadata:
        """What DCP's load planner is told of the tensors asked for."""
        return Metadata(
            {
                name: TensorStorageMetadata(
                    properties=TensorProperties(dtype=torch.float32),
                    size=torch.Size(self._index[name]["shape"]),
                    chunks=[
                        ChunkStorageMetadata(torch.Size(box["offsets"]), torch.Size(box["sizes"]))
                        for box in self._index[name]["boxes"]
                    ],
                )
                for name in names
            }
        )

    def _file(self, name: str, offsets: tuple[int, ...]) -> str:
        boxes = self._index[name]["boxes"]
        return str(next(box["file"] for box in boxes if tuple(box["offsets"]) == offsets))


def key(name: str, offsets: tuple[int, ...]) -> str:
    """The name of a box within its file."""
    return f"{name}@{','.join(map(str, offsets))}"


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return dict(found)
