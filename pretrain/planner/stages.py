"""What each stage of a layout holds: blocks, and the sizes of a rank's parameters.

Sizes are read off the model's own layers, built on PyTorch's meta device with a factory
that divides the wide ones by T. Of a DiT one block stands for all: a model of any size is
counted in milliseconds.
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
    """Some parameters of one rank, by size.

    Args:
        sizes: pairs of the elements of a trained tensor, and how many such tensors there are.
        frozen: the same of those that are not trained.
        decayed: elements of those that weight decay applies to.
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
    """One of P contiguous parts of the layers, as one of T ranks holds it.

    Args:
        index: of 0 to P - 1. layers: of the embedding (0), the blocks and the head.
        blocks: those of the layers that are blocks.
        operations: forward and backward per token, over all T ranks.
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
        """Whether it is the first."""
        return self.layers.start < self.blocks.start

    @property
    def has_head(self) -> bool:
        """Whether it is the last."""
        return self.layers.stop > self.blocks.stop

    @cached_property
    def parameters(self) -> int:
        """Elements of all of this rank's parameters."""
        return self.trained + sum(size * num for size, num in self.tensors.frozen)

    @property
    def trained(self) -> int:
        """Elements of those that are trained."""
        return sum(size * num for size, num in self.tensors.sizes)


@lru_cache(maxsize=1024)
def stages(model: ModelConfig, length: int, tensor: int, pipeline: int) -> tuple[Stage, ...]:
    """The stages of a layout, by the cut that the engines use."""
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
    """Each layer; a shared table of embeddings is with the first."""
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
    """The network of one of ``tensor`` ranks without its values, built in milliseconds."""
    with torch.device("meta"):
        return build(model, factory=_Parts(tensor))


class _Parts(DenseFactory):
    """Layers of the sizes that one of ``tensor`` ranks holds; they are never run.

    Two are not what they stand for, since these would import a compiler on the meta device,
    which takes longer than all the rest: an embedding drawn from a normal, and the head.
    """

    def __init__(self, tensor: int) -> None:
        self._tensor = tensor

    def column(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """Some of the outputs."""
        return nn.Linear(num_in, num_out // self._tensor, bias=bias)

    def row(self, num_in: int, num_out: int, *, bias: bool) -> nn.Module:
        """Some of the inputs; the bias is whole."""
        return nn.Linear(num_in // self._tensor, num_out, bias=bias)

    def grouped(
        self, num_in: int, num_heads: int, num_groups: int, head_width: int, *, bias: bool
    ) -> nn.Module:
        """Some of the heads, or all where they do not divide."""
        heads = num_groups if num_groups % self._tensor else num_groups // self._tensor
        return nn.Linear(num_in, heads * head_width, bias=bias)

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """Some of the rows."""
        empty = torch.empty(num_rows // self._tensor, width)
        return nn.Embedding.from_pretrained(empty, freeze=False)

    def head(self, width: int, num_rows: int, excluded: Tensor, *, bias: bool) -> nn.Module:
        """Some of the rows."""
        return nn.Linear(width, num_rows // self._tensor, bias=bias)
