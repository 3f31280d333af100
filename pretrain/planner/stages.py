"""Pipeline stages of a layout: their layers, and the parameter sizes of a rank.

Sizes come from the model's own layers, built on PyTorch's meta device with a layer factory
that divides the wide ones by T. If all blocks are the same (DiT), only one is built, so that a
model of any size is counted in milliseconds.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.networks.frozen import is_frozen
from model.networks.linears import DenseFactory
from pretrain.optim import parameter_groups
from pretrain.planner.partition import balanced, layer_costs


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Sizes of a set of one rank's parameters.

    Args:
        sizes: pairs of the number of elements of a trained tensor and the number of such tensors.
        frozen: the same for tensors that are not trained.
        decayed: total elements of the tensors with weight decay.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    frozen: tuple[tuple[int, int], ...] = ()
    decayed: int = 0

    def __add__(self, other: "Tensors") -> "Tensors":
        return Tensors(
            sizes=self.sizes + other.sizes,
            frozen=self.frozen + other.frozen,
            decayed=self.decayed + other.decayed,
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One of P pipeline stages, as held by one of T tensor-parallel ranks.

    Args:
        index: from 0 to P - 1. layers: indices, of the embedding (0), the blocks and the head.
        blocks: the layers that are blocks.
        operations: forward and backward FLOPs per token, over all T ranks.
        block_operations: those of one block.
    """

    index: int
    layers: range
    blocks: range
    tensors: Tensors
    operations: float
    block_operations: float

    @property
    def has_embedding(self) -> bool:
        """Whether it has the embedding: the first stage."""
        return self.layers.start < self.blocks.start

    @property
    def has_head(self) -> bool:
        """Whether it has the head: the last stage."""
        return self.layers.stop > self.blocks.stop

    @cached_property
    def parameters(self) -> int:
        """Number of this rank's parameters, trained and frozen."""
        return self.trained + sum(size * num for size, num in self.tensors.frozen)

    @property
    def trained(self) -> int:
        """Number of this rank's trained parameters."""
        return sum(size * num for size, num in self.tensors.sizes)


@lru_cache(maxsize=1024)
def stages(model: ModelConfig, length: int, tensor: int, pipeline: int) -> tuple[Stage, ...]:
    """The pipeline stages of a layout, split as the engines split them."""
    layers = _layers(model, tensor)
    costs = layer_costs(model, length)
    found = []
    for index, (start, stop) in enumerate(pairwise(balanced(costs, pipeline))):
        blocks = range(max(start, 1), min(stop, len(costs) - 1))
        tensors = sum(layers[start:stop], Tensors())
        if stop == len(costs) and model.shares_embedding and start > 0:
            table = ((model.num_rows // tensor * model.table_width, 1),)
            is_frozen_table = is_frozen("layers.0.tokens.weight", model.frozen)
            tensors += Tensors(frozen=table) if is_frozen_table else Tensors(sizes=table)
        found.append(
            Stage(
                index=index,
                layers=range(start, stop),
                blocks=blocks,
                tensors=tensors,
                operations=sum(costs[max(1, start) : stop]),
                block_operations=costs[-2],
            )
        )
    return tuple(found)


@lru_cache(maxsize=64)
def _layers(model: ModelConfig, tensor: int) -> list[Tensors]:
    """Parameter sizes of each layer; a tied embedding counts with the first."""
    uniform = model.has_uniform_blocks
    built = replace(model, num_layers=1) if uniform else model
    names = on_meta(built, tensor).parameter_names()
    groups: Any = parameter_groups(names, 1.0)
    decayed = {one for group in groups if group["weight_decay"] for one in group["params"]}
    found = [Tensors() for _ in range(built.total_layers)]
    for parameter, name in names.items():
        size = ((parameter.numel(), 1),)
        found[int(name.split(".")[1])] += Tensors(
            sizes=size if parameter.requires_grad else (),
            frozen=() if parameter.requires_grad else size,
            decayed=parameter.numel() if parameter in decayed else 0,
        )
    if not uniform:
        return found
    embedding, block, head = found
    return [embedding, *[block] * model.num_layers, head]


def on_meta(model: ModelConfig, tensor: int = 1) -> Network:
    """One tensor-parallel rank's network on the meta device, built in milliseconds."""
    with torch.device("meta"):
        return build(model, factory=_Parts(tensor))


class _Parts(DenseFactory):
    """Layer factory with the shard sizes of one of ``tensor`` ranks; the layers are never run.

    Embedding and head are stand-ins of equal size: building the real ones on the meta device
    imports torch's compiler, which takes longer than everything else.
    """

    def __init__(self, tensor: int) -> None:
        self._tensor = tensor

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A share of the outputs."""
        return nn.Linear(num_in, num_out // self._tensor, bias=bias)

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """A share of the inputs; the bias is not split."""
        return nn.Linear(num_in // self._tensor, num_out, bias=bias)

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """A share of the key/value heads, or all if T does not divide them."""
        heads = num_groups if num_groups % self._tensor else num_groups // self._tensor
        return nn.Linear(num_in, heads * head_width, bias=bias)

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """A share of the rows."""
        empty = torch.empty(num_rows // self._tensor, width)
        return nn.Embedding.from_pretrained(empty, freeze=False)

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """A share of the rows."""
        return nn.Linear(width, num_rows // self._tensor, bias=bias)
