"""This rank's part of a network, and forward passes without gradient over its ranks.

In a pipeline a batch is split into as many pieces as there are stages, so that the stages
compute at the same time. What the caller reads off the prediction is computed on the last stage
and sent to the others: samplers and the evaluator run alike on all ranks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.networks.layers import Stream
from model.networks.linears import LayerFactory
from model.prediction import Answer, Outputs, Read
from model.query import Query
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.partition import span_of

if TYPE_CHECKING:
    from pretrain.parallel.mesh import Mesh

_DTYPES = (
    torch.float32, torch.bfloat16, torch.float16, torch.float64,
    torch.uint8, torch.int64, torch.int32, torch.bool,
)  # fmt: skip
_MAX_TENSORS, _MAX_DIM = 8, 4


def local_denoiser(
    model: ModelConfig, layout: ParallelConfig, length: int, mesh: "Mesh", seed: int
) -> Network:
    """The layers of this rank's stage, cut for its place on the tensor axis.

    Args:
        length: of the sequences, by which the pipeline is balanced.
    """
    factory: LayerFactory | None = None
    if mesh.tensor_size > 1:
        from pretrain.parallel.tensor import TensorFactory

        factory = TensorFactory(mesh, sequence_parallel=layout.sequence_parallel)
    return build(
        model,
        seed=seed,
        factory=factory,
        span=span_of(model, length, mesh.pipe_size, mesh.pipe_rank),
        recompute_every=layout.recompute_every,
    )


class DistributedNetwork:
    """A network divided over ranks, called like one on a single rank; calls are collectives."""

    def __init__(self, network: Network, mesh: "Mesh") -> None:
        self._network, self._mesh = network, mesh

    @torch.no_grad()
    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """Apply ``read`` to the prediction; returns its result on every rank.

        In a pipeline ``read`` runs on the last stage, and its result is sent to the others: a
        tensor, or a tuple of up to eight of them.
        """
        mesh, network = self._mesh, self._network
        with network.factory.all_positions():
            if mesh.pipe_size == 1:
                return network.ask(query, read)
            pieces = enumerate(_pieces(query, mesh.pipe_size))
            parts = [self._stage(piece, number) for number, piece in pieces]
        if not mesh.is_last_stage:
            return self._answer(None)
        outputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return self._answer(read(network.prediction(outputs)))

    @torch.no_grad()
    def encode(self, query: Query) -> Query:
        """Encode the source, which does not depend on the level, where there is one stage."""
        if self._mesh.pipe_size > 1:
            return query
        with self._network.factory.all_positions():
            return self._network.encode(query)

    def _answer(self, answer: Any) -> Any:
        """The last stage's answer, a tensor or a tuple of them, on every stage."""
        mesh = self._mesh
        alone = isinstance(answer, Tensor)
        tensors = [answer] if alone else list(answer or ())
        head = mesh.from_last_stage(_head(tensors, alone=alone).to(mesh.device))
        shared = []
        for number, (kind, shape) in enumerate(_read_head(head)):
            tensor = tensors[number] if tensors else torch.empty(shape, dtype=kind)
            # Gloo sends no truth values.
            sent = tensor.to(mesh.device, torch.uint8 if kind == torch.bool else kind)
            shared.append(mesh.from_last_stage(sent).to(kind))
        return shared[0] if head[-1, 0] else tuple(shared)

    def _stage(self, query: Query, number: int) -> Outputs:
        """This stage's work on one piece; the outputs on the last stage, else nothing."""
        mesh, network = self._mesh, self._network
        network.attend(query.layout, number)
        stream = network.body(network.inputs(query) if mesh.is_first_stage else self._receive())
        if mesh.is_last_stage:
            return network.finish(stream, query)
        self._send(stream)
        return {}

    def _send(self, stream: Stream) -> None:
        """Number, kinds and shapes of the tensors, then the tensors."""
        mesh = self._mesh
        target = mesh.stage(mesh.pipe_rank + 1)
        for tensor in (_head(stream).to(mesh.device), *stream):
            dist.send(tensor.contiguous(), target, group=mesh.pipe_group)

    def _receive(self) -> Stream:
        mesh = self._mesh
        source = mesh.stage(mesh.pipe_rank - 1)
        head = _head(()).to(mesh.device)
        dist.recv(head, source, group=mesh.pipe_group)
        stream = []
        for kind, shape in _read_head(head):
            tensor = torch.empty(shape, dtype=kind, device=mesh.device)
            dist.recv(tensor, source, group=mesh.pipe_group)
            stream.append(tensor)
        return tuple(stream)


def _head(tensors: Sequence[Tensor], *, alone: bool = False) -> Tensor:
    """Kinds and shapes of some tensors, and whether one stands alone, as integers."""
    if len(tensors) > _MAX_TENSORS:
        raise ValueError(f"{len(tensors)} tensors; at most {_MAX_TENSORS} go between stages")
    head = torch.zeros(_MAX_TENSORS + 1, 2 + _MAX_DIM, dtype=torch.int64)
    for row, tensor in zip(head, tensors, strict=False):
        row[0], row[1] = 1 + _DTYPES.index(tensor.dtype), tensor.dim()
        row[2 : 2 + tensor.dim()] = torch.tensor(tensor.shape)
    head[-1, 0] = alone
    return head


def _read_head(head: Tensor) -> list[tuple[torch.dtype, list[int]]]:
    return [(_DTYPES[kind - 1], shape[:dim]) for kind, dim, *shape in head[:-1].tolist() if kind]


def _pieces(query: Query, num: int) -> list[Query]:
    """A query by samples, in at most ``num`` of them."""
    batch = len(query.ids_BL)
    rows_N = torch.arange(batch, device=query.ids_BL.device)
    return [query.rows(piece) for piece in rows_N.chunk(min(num, batch))]
