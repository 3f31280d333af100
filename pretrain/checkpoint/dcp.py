"""Ranges of parameters as shards of PyTorch's distributed checkpoint (DCP).

DCP's planners work with boxes of full tensors: those that a rank holds, those that a checkpoint
holds, and their intersections. A rank's range of a parameter is at most a few boxes
(:mod:`pretrain.parallel.ranges`); :class:`DcpShard` gives them to the planners, with their values,
which are views into the rank's flat masters.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import ReadItem, TensorWriteData, WriteItem, WriteItemType

from pretrain.parallel.ranges import FlatRange, Flats


class DcpShard(torch.Tensor):
    """This rank's shard of one tensor: it has the full shape, and holds a range of the elements.

    Args:
        shards: the range.
        flat: its values ``[num]``, a view.
    """

    shards: FlatRange
    flat: Tensor

    @staticmethod
    def __new__(cls, shards: FlatRange, flat: Tensor) -> "DcpShard":
        """Make a tensor without storage of its own."""
        piece: DcpShard = torch.Tensor._make_wrapper_subclass(
            cls, shards.shape, dtype=flat.dtype, device=flat.device
        )
        piece.shards, piece.flat = shards, flat
        return piece

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Raise: shards cannot be computed with."""
        raise NotImplementedError(f"{func} on a piece of a tensor")

    def chunks(self) -> Iterator[ChunkStorageMetadata]:
        """The boxes of the full tensor that this shard holds."""
        for box in self.shards.boxes():
            yield ChunkStorageMetadata(torch.Size(box.corner), torch.Size(box.sizes))

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        """Boxes to read, for DCP's load planner."""
        return list(self.chunks())

    def __create_write_items__(self, name: str, piece: Any) -> list[WriteItem]:
        """Boxes to write, for DCP's save planner."""
        return [
            WriteItem(
                index=MetadataIndex(name, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk,
                    properties=TensorProperties(dtype=self.flat.dtype),
                    size=torch.Size(self.shards.shape),
                ),
            )
            for chunk in self.chunks()
        ]

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        """Values of one box, for DCP."""
        for box in self.shards.boxes():
            if torch.Size(box.corner) == index.offset:
                return self.flat[box.at : box.at + box.num].view(box.sizes)
        raise ValueError(f"no box at {index.offset} in {self.shards}")


def pieces_of(held: Flats) -> dict[str, DcpShard]:
    """This rank's shard of each parameter, by ``kind/name``."""
    return {
        f"{kind}/{owned_range.range.name}": DcpShard(owned_range.range, owned_range.of(flats))
        for kind, flats in held.kinds.items()
        for owned_range in held.owned_ranges
        if owned_range.is_in(flats)
    }


def to_write(pieces: dict[str, DcpShard]) -> Iterator[tuple[str, ChunkStorageMetadata, Tensor]]:
    """Name, box and values of each item of DCP's save plan of this rank."""
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(pieces))
    for item in planner.create_local_plan().items:
        assert item.tensor_data is not None
        value = planner.resolve_data(item)
        assert isinstance(value, Tensor)
        yield item.index.fqn, item.tensor_data.chunk, value


def to_read(pieces: dict[str, DcpShard], metadata: Metadata) -> Iterator[tuple[ReadItem, Tensor]]:
    """Each item of DCP's load plan, with the view of this rank's values that it fills.

    Raises:
        RuntimeError, ValueError: the checkpoint lacks a tensor, or has it in another shape.
    """
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(pieces), metadata, is_coordinator=False)
    for item in planner.create_local_plan().items:
        yield item, planner.resolve_tensor(item).detach()
