"""Reads any box of any tensor of a checkpoint, straight from the files that hold it.

A box is compared with its checksum once its bytes are in memory, so that its file is read once.
Where the checksum of the file has been verified before, as by a resume, parts of boxes are read.
"""

import math
import zlib
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
from torch.distributed.checkpoint.planner import ReadItem

from configs.errors import UserError
from model.objectives import State
from pretrain.checkpoint import contents, objective_tensors, store
from pretrain.checkpoint.dcp import DcpShard, to_read
from pretrain.checkpoint.manifest import File
from pretrain.parallel.ranges import FlatRange


class Reader:
    """An open checkpoint; its tensors are read only where they are asked for.

    Args:
        checkpoint: its path, or its small files where they have been read already.
        verified: every byte of its files has been compared with its checksum already.

    Attributes:
        state: contents of ``state.json``.
        files: size and checksum of every file.
    """

    def __init__(self, checkpoint: Path | store.Contents, *, verified: bool = False) -> None:
        found = store.check(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self.path, self.state = found.path, found.state
        self.files, self._index = found.files, found.index
        self._sound = set(self.files) if verified else set[str]()

    def shapes(self, kind: str = "master") -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of a kind."""
        prefix = f"{kind}/"
        return {
            name.removeprefix(prefix): tuple(facts["shape"])
            for name, facts in self._index.items()
            if name.startswith(prefix)
        }

    def kinds(self) -> list[str]:
        """The kinds of tensors: master, exp_avg, ..."""
        return sorted({name.partition("/")[0] for name in self._index})

    def weights(self, which: str) -> str:
        """The kind of the averaged (``ema``) or last (``raw``) weights; the one kind there is."""
        return "ema" if which == "ema" and "ema" in self.kinds() else "master"

    def objective_state(self) -> State:
        """See :func:`pretrain.checkpoint.objective_tensors.read`."""
        return objective_tensors.read(self.path, self.files, self.state)

    def read_into(self, pieces: Mapping[str, DcpShard]) -> None:
        """Fill pieces, by ``kind/name``, in place.

        Raises:
            UserError: tensors are missing or have other shapes (all are named), or a file
                cannot be read.
        """
        self.require({name: piece.shards.shape for name, piece in pieces.items()})
        boxes = _Boxes(self.path, self.files, self._sound)
        filled = dict.fromkeys(pieces, 0)
        for item, target in self._items(pieces):
            name, offset = item.storage_index.fqn, item.storage_index.offset
            assert offset is not None
            where = zip(item.storage_offsets, item.lengths, strict=True)
            index = tuple(slice(a, a + n) for a, n in where)
            target.copy_(boxes.read(name, self._box(name, tuple(offset)), index))
            filled[name] += target.numel()
        for name, piece in pieces.items():
            if filled[name] != piece.shards.num:
                raise self._gap(name, filled[name], piece.shards.num)

    def read(self, kind: str, wanted: FlatRange) -> Tensor:
        """The elements of ``wanted``, flat ``[num]`` fp32; raises as :meth:`read_into`."""
        self._require_no_gap(f"{kind}/{wanted.name}")
        value = torch.empty(wanted.num)
        self.read_into({f"{kind}/{wanted.name}": DcpShard(wanted, value)})
        return value

    def whole(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        """Every parameter in its full shape, one after the other."""
        for name, shape in self.shapes(kind).items():
            yield name, self.read(kind, FlatRange.whole(name, shape)).view(shape)

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

    def _require_no_gap(self, name: str) -> None:
        """Checked before memory is allocated: an index may claim any shape."""
        entry = self._index.get(name)
        if entry is not None:
            held = sum(math.prod(box["sizes"]) for box in entry["boxes"])
            if held < math.prod(entry["shape"]):
                raise self._gap(name, held, math.prod(entry["shape"]))

    def _gap(self, name: str, held: int, wanted: int) -> UserError:
        return UserError(f"{self.path} holds {held} of {wanted} elements of {name}")

    def _items(self, pieces: Mapping[str, DcpShard]) -> Iterator[tuple[ReadItem, Tensor]]:
        """Items of DCP's load plan, and the tensors that they fill."""
        try:
            yield from to_read(dict(pieces), self._metadata(pieces))
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(f"{self.path} cannot be read: {error}") from error

    def _metadata(self, names: Mapping[str, DcpShard]) -> Metadata:
        """Metadata of these tensors for DCP's load planner."""
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

    def _box(self, name: str, offsets: tuple[int, ...]) -> contents.Slice:
        boxes = self._index[name]["boxes"]
        return next(box for box in boxes if tuple(box["offsets"]) == offsets)


class _Boxes:
    """Boxes of a checkpoint; each file is opened once.

    Args:
        sound: files whose checksum has been verified; files are added to it.
    """

    def __init__(self, path: Path, files: Mapping[str, File], sound: set[str]) -> None:
        self._path, self._files, self._sound = path, files, sound
        self._opened: dict[str, Any] = {}
        self._last: tuple[str, Tensor] | None = None

    def read(self, name: str, box: contents.Slice, index: tuple[slice, ...]) -> Tensor:
        """Part of a box; raises UserError where its checksum does not match."""
        file, inside = box["file"], key(name, tuple(box["offsets"]))
        try:
            held = self._open(file, box).get_slice(inside)
            if list(held.get_shape()) != box["sizes"] or held.get_dtype() != "F32":
                raise UserError(f"{self._path} is damaged: {file} holds another {inside}")
            if file in self._sound:
                part: Tensor = held[index] if index else held[...]
                return part
            if self._last is None or self._last[0] != inside:
                self._last = inside, self._checked(held[...], inside, box)
            return self._last[1][index]
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self._path / file} cannot be read: {error}") from error

    def _checked(self, value: Tensor, inside: str, box: contents.Slice) -> Tensor:
        if crc32(value) != box["crc32"]:
            raise UserError(
                f"{self._path} is damaged: {box['file']} does not have the checksum of {inside} "
                "that it was written with"
            )
        return value

    def _open(self, file: str, box: contents.Slice) -> Any:
        if file not in self._opened:
            if file not in self._sound and "crc32" not in box:  # of format 4
                store.require_checksum(self._path, file, self._files[file])
                self._sound.add(file)
            self._opened[file] = safe_open(self._path / file, framework="pt")
        return self._opened[file]


def crc32(value: Tensor) -> int:
    """CRC-32 of a tensor's values, row by row as in a file."""
    return zlib.crc32(value.contiguous().view(-1).numpy().data)


def key(name: str, offsets: tuple[int, ...]) -> str:
    """The name of a box within its file."""
    return f"{name}@{','.join(map(str, offsets))}"
