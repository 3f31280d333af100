"""This rank's part of a denoiser, and its forward pass without gradient.

A pipeline passes the stream from stage to stage in as many pieces as it has stages, so
that the stages work at the same time. What a caller asks of the prediction is computed on
the last stage and sent to the others: samplers and the evaluator run alike on all ranks.
"""

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from model.config import ModelConfig
from model.denoiser import Denoiser
from model.draws import Draws
from model.layers import Stream
from model.linears import LayerFactory
from model.prediction import Prediction
from pretrain.config import ParallelConfig
from pretrain.layout import span_of

if TYPE_CHECKING:
    from pretrain.parallel.mesh import Mesh

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64)
_MAX_TENSORS, _MAX_DIM = 8, 4


def local_denoiser(
    model: ModelConfig, layout: ParallelConfig, length: int, mesh: "Mesh", seed: int
) -> Denoiser:
    """The layers of this rank's stage, cut for its place on the tensor axis.

    Args:
        length: of the sequences, by which the pipeline is balanced.
    """
    factory: LayerFactory | None = None
    if mesh.tensor_size > 1:
        from pretrain.parallel.tensor import TensorFactory

        factory = TensorFactory(mesh, sequence_parallel=layout.sequence_parallel)
    return Denoiser(
        model,
        seed=seed,
        factory=factory,
        span=span_of(model, length, mesh.pipe_size, mesh.pipe_rank),
        recompute_every=layout.recompute_every,
    )


def as_prediction(logits_MR: Tensor, mesh: "Mesh") -> Prediction:
    """The prediction of logits that this rank computed: whole, or its part of the vocabulary."""
    if mesh.tensor_size == 1:
        return Prediction(logits_MR)
    from pretrain.parallel.tensor import ShardedPrediction

    return ShardedPrediction(logits_MR, mesh)


class Forward:
    """Predictions of a local denoiser; all ranks of a pipeline and tensor group call together."""

    def __init__(self, denoiser: Denoiser, mesh: "Mesh") -> None:
        self._denoiser, self._mesh = denoiser, mesh

    @torch.no_grad()
    def __call__(
        self,
        ids_BL: Tensor,
        level_BK: Tensor,
        where_BL: Tensor,
        valid_BL: Tensor | None = None,
    ) -> Prediction:
        """The prediction at the true positions of ``where_BL``, with the present weights."""
        mesh = self._mesh
        with self._denoiser.factory.all_positions():
            if mesh.pipe_size == 1:
                return as_prediction(self._denoiser(ids_BL, level_BK, where_BL, valid_BL), mesh)
            inputs = self._denoiser.inputs(ids_BL, level_BK, valid_BL)
            pieces = min(mesh.pipe_size, len(ids_BL))
            parts = zip(*(x.chunk(pieces) for x in (*inputs, where_BL)), strict=True)
            logits = [self._stage(part[:-1], part[-1]) for part in parts]
        last = as_prediction(torch.cat(logits), mesh) if mesh.is_last_stage else None
        return RemotePrediction(last, mesh)

    def _stage(self, inputs: Stream, where_BL: Tensor) -> Tensor:
        """This stage's work on one piece; the logits on the last stage, else nothing."""
        mesh = self._mesh
        stream = self._denoiser.body(inputs if mesh.is_first_stage else self._receive())
        if mesh.is_last_stage:
            return self._denoiser.output(stream, where_BL)
        self._send(stream)
        return torch.empty(0)

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
