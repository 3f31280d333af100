"""This rank's part of a network, and its forward pass without gradient.

A pipeline passes the stream from stage to stage in as many pieces as it has stages, so
that the stages work at the same time. What a caller asks of the prediction is computed on
the last stage and sent to the others: samplers and the evaluator run alike on all ranks.
"""

from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from model.config import ModelConfig
from model.draws import Draws
from model.layers import Stream
from model.linears import LayerFactory
from model.network import Network, build
from model.prediction import AnyPrediction, Prediction, Reconstruction, prediction_of
from model.query import Query
from model.seq2seq import Seq2Seq
from model.seq2seq_layers import Exit
from pretrain.config import ParallelConfig
from pretrain.layout import span_of

if TYPE_CHECKING:
    from pretrain.parallel.mesh import Mesh

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64)
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


def as_prediction(outputs: Tensor | tuple[Tensor, ...], mesh: "Mesh") -> AnyPrediction:
    """What this rank's outputs mean, whose logits are whole or its part of the vocabulary."""
    if mesh.tensor_size == 1:
        return prediction_of(outputs)
    from pretrain.parallel.tensor import ShardedPrediction

    return prediction_of(outputs, partial(ShardedPrediction, mesh=mesh))


class Forward:
    """A network in parts, asked like :class:`model.network.Whole`; its ranks call together."""

    def __init__(self, network: Network, mesh: "Mesh") -> None:
        self._network, self._mesh = network, mesh

    @torch.no_grad()
    def predict(self, query: Query) -> AnyPrediction:
        """The answer with the present weights."""
        mesh = self._mesh
        with self._network.factory.all_positions():
            if mesh.pipe_size == 1:
                return as_prediction(self._network.answer(query), mesh)
            answers = [self._stage(part) for part in _pieces(query, mesh.pipe_size)]
        last = None
        if mesh.is_last_stage:
            outputs = tuple(torch.cat(parts) for parts in zip(*answers, strict=True))
            last = as_prediction(
                outputs if isinstance(self._network, Seq2Seq) else outputs[0], mesh
            )
        return self._from_last_stage(last, query)

    def _from_last_stage(self, last: AnyPrediction | None, query: Query) -> AnyPrediction:
        """The last stage's prediction, as all stages see it."""
        mesh = self._mesh
        if not isinstance(self._network, Seq2Seq):
            assert not isinstance(last, Reconstruction)
            return RemotePrediction(last, mesh)
        assert last is None or isinstance(last, Reconstruction)
        shape = (int(query.where_BL.sum()), self._network.config.table_width)
        empty_ME = torch.empty(shape, device=mesh.device)
        output_ME = mesh.from_last_stage(last.output_ME.float() if last else empty_ME)
        if query.start_noise_BLE is None:
            return Reconstruction(output_ME=output_ME)
        embedding_ME = last.embedding_ME if last else None
        return Reconstruction(
            output_ME=output_ME,
            embedding_ME=mesh.from_last_stage(
                empty_ME if embedding_ME is None else embedding_ME.float()
            ),
            rounding=RemotePrediction(last.rounding if last else None, mesh),
        )

    @torch.no_grad()
    def remember(self, query: Query) -> Query:
        """The query with what is the same at every level worked out, where one stage can."""
        if self._mesh.pipe_size > 1:
            return query
        with self._network.factory.all_positions():
            return self._network.remember(query)

    @torch.no_grad()
    def round(self, x_ME: Tensor) -> Tensor:
        """See :meth:`model.network.Whole.round`."""
        if not self._mesh.is_last_stage:
            return self._mesh.from_last_stage(torch.empty_like(x_ME[:, 0], dtype=torch.int64))
        return self._mesh.from_last_stage(self._table.round(x_ME))

    @torch.no_grad()
    def nearest(self, x_ME: Tensor) -> Tensor:
        """See :meth:`model.network.Whole.nearest`."""
        if not self._mesh.is_last_stage:
            return self._mesh.from_last_stage(torch.empty_like(x_ME))
        return self._mesh.from_last_stage(self._table.nearest(x_ME)[1])

    @property
    def _table(self) -> Exit:
        assert isinstance(self._network, Seq2Seq)
        return self._network.output

    def _stage(self, query: Query) -> tuple[Tensor, ...]:
        """This stage's work on one piece; the outputs on the last stage, else nothing."""
        mesh, network = self._mesh, self._network
        stream = network.body(network.inputs(query) if mesh.is_first_stage else self._receive())
        if mesh.is_last_stage:
            outputs = network.output(stream, *network.wanted(query))
            return (outputs,) if isinstance(outputs, Tensor) else outputs
        self._send(stream)
        return ()

    def _send(self, stream: Stream) -> None:
        """Number, kinds and shapes of the tensors, then the tensors."""
        mesh = self._mesh
        head = torch.zeros(_MAX_TENSORS, 2 + _MAX_DIM, dtype=torch.int64)
        for row, tensor in zip(head, stream, strict=False):
            row[0], row[1] = 1 + _DTYPES.index(tensor.dtype), tensor.dim()
            row[2 : 2 + tensor.dim()] = torch.tensor(tensor.shape)
        target = mesh.stage(mesh.pipe_rank + 1)
        for tensor in (head.to(mesh.device), *stream):
            dist.send(tensor.contiguous(), target, group=mesh.pipe_group)

    def _receive(self) -> Stream:
        mesh = self._mesh
        source = mesh.stage(mesh.pipe_rank - 1)
        head = torch.zeros(_MAX_TENSORS, 2 + _MAX_DIM, dtype=torch.int64, device=mesh.device)
        dist.recv(head, source, group=mesh.pipe_group)
        stream = []
        for kind, dim, *shape in head.tolist():
            if kind:
                tensor = torch.empty(shape[:dim], dtype=_DTYPES[kind - 1], device=mesh.device)
                dist.recv(tensor, source, group=mesh.pipe_group)
                stream.append(tensor)
        return tuple(stream)


def _pieces(query: Query, num: int) -> list[Query]:
    """A query by samples, in at most ``num`` of them."""
    names = [field.name for field in fields(query) if field.name != "count"]
    given = {name: value for name in names if (value := getattr(query, name)) is not None}
    chunks = [value.chunk(min(num, len(query.ids_BL))) for value in given.values()]
    return [
        replace(query, **dict(zip(given, parts, strict=True)))
        for parts in zip(*chunks, strict=True)
    ]


class RemotePrediction(Prediction):
    """The last stage's prediction, as all stages see it."""

    def __init__(self, last: Prediction | None, mesh: "Mesh") -> None:
        self._last, self._mesh = last, mesh

    def log_prob(self, ids_M: Tensor) -> Tensor:
        """log p of one id at each position, ``[M]`` float32, without gradient."""
        if self._last is None:
            value_M = torch.empty(ids_M.shape, device=ids_M.device)
        else:
            value_M = self._last.log_prob(ids_M)
        return self._mesh.from_last_stage(value_M)

    def sample(
        self, draws: Draws, kind: str, position_M: Tensor, column_M: Tensor, temperature: float
    ) -> Tensor:
        """See :meth:`Prediction.sample`."""
        if self._last is None:
            id_M = torch.empty_like(column_M)
        else:
            id_M = self._last.sample(draws, kind, position_M, column_M, temperature)
        return self._mesh.from_last_stage(id_M)
