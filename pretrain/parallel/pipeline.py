"""The denoiser under DeepSpeed's pipeline engine, which runs the 1F1B schedule.

Differences from DeepSpeed's defaults: layers are assigned to stages by their cost; the head, which
runs at the noisy positions only, is part of the loss function; a buffer is allocated for every
tensor, since DeepSpeed reuses buffers by position in the tuple, whatever their dtype; activation
checkpointing is not reentrant, which a stage with several outputs rules out. See also
``immediate_grad_update`` in :func:`pretrain.parallel.settings.deepspeed_settings`.
"""

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.networks.base import Network
from model.networks.layers import Stream
from model.objectives import Noisy
from pretrain.config import RunConfig
from pretrain.parallel import deepspeed
from pretrain.parallel.engine import Engine, Sums
from pretrain.parallel.mesh import Mesh


class PipelineEngine(Engine):
    """One stage of a pipeline, through which micro-batches follow one another."""

    def __init__(self, config: RunConfig, mesh: Mesh) -> None:
        self._micro_batches: Sequence[Noisy] = ()
        self._scales: Mapping[str, float] = {}
        super().__init__(config, mesh)
        self._sums = self._no_sums()

    def _initialize(self, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Any:
        settings["pipeline"] = {
            "pipe_partitioned": False,
            "grad_partitioned": False,
            "use_reentrant": False,
        }
        with deepspeed.quiet():
            stages = Stages(self._denoiser, self._mesh, self._loss)
        engine = deepspeed.initialize(
            model=stages, optimizer=optimizer, config=settings, dist_init_required=False
        )
        engine._allocate_or_extend_buffers = MethodType(_fresh_buffer, engine)
        return engine

    def _run(self, micro_batches: Sequence[Noisy], scales: Mapping[str, float]) -> Sums:
        self._micro_batches, self._scales = micro_batches, scales
        self._sums = self._no_sums()
        inputs = (
            (self._denoiser.inputs(noisy), torch.tensor(number))
            for number, noisy in enumerate(micro_batches)
        )
        self._engine.train_batch(inputs)
        return self._sums

    def _loss(self, stream: Stream, number: Tensor) -> Tensor:
        """On the last stage, the scaled loss of micro-batch ``number``."""
        noisy = self._micro_batches[int(number)]
        prediction = self._denoiser.prediction(self._denoiser.finish(stream, noisy))
        return self._sums.add(prediction, noisy, int(number), self._scales)


class Stages(deepspeed.PipelineModule):
    """DeepSpeed's list of layers; those of other stages are identities here."""

    def __init__(self, denoiser: Network, mesh: Mesh, loss: Any) -> None:
        self._span = denoiser.span
        here = {int(name): layer for name, layer in denoiser.layers.items()}
        if denoiser.last in here:
            here[denoiser.last] = InLoss(denoiser.output)
        super().__init__(
            layers=[here.get(index, nn.Identity()) for index in range(denoiser.last + 1)],
            topology=deepspeed.PipeModelDataParallelTopology(
                num_pp=mesh.pipe_size, num_mp=mesh.tensor_size, num_dp=mesh.data_size
            ),
            loss_fn=loss,
        )
        self._tied: list[tuple[Tensor, dist.ProcessGroup]] = []
        if denoiser.config.shares_embedding:
            self._tie(denoiser, mesh)

    def forward(self, inputs: Stream) -> Stream:
        """Run the stage's layers; every floating output requires a gradient, even of frozen layers.

        DeepSpeed sends back a gradient for each floating tensor between stages.
        """
        outputs: Stream = super().forward(inputs)
        if not torch.is_grad_enabled():
            return outputs
        return tuple(
            value.detach().requires_grad_()
            if value.is_floating_point() and not value.requires_grad
            else value
            for value in outputs
        )

    def _partition_layers(self, method: str = "") -> None:
        self._set_bounds(start=self._span.start, stop=self._span.stop)

    def _tie(self, denoiser: Network, mesh: Mesh) -> None:
        """Tie the weight of first and last stage: sum its gradients, count its norm once."""
        ends = torch.tensor([mesh.stage(0), mesh.stage(mesh.pipe_size - 1)])
        everywhere = [torch.empty_like(ends) for _ in range(mesh.size)]
        dist.all_gather(everywhere, ends)
        for pair in sorted({tuple(pair.tolist()) for pair in everywhere}):
            group = dist.new_group(pair)
            if mesh.rank in pair:
                at_first = mesh.is_first_stage
                weight: Any = (denoiser.embedding if at_first else denoiser.output).weight
                weight.ds_pipe_replicated = not at_first
                if weight.requires_grad:
                    self._tied = [(weight, group)]

    def get_tied_weights_and_groups(self) -> list[tuple[Tensor, dist.ProcessGroup]]:
        """Weights whose gradients DeepSpeed sums after the last backward pass of a step.

        DeepSpeed leaves out a weight without gradient, and the other stage would wait for ever:
        where the loss does not read the table on one stage, its gradient there is set to zero.
        """
        for weight, _ in self._tied:
            if weight.grad is None:
                torch.autograd.backward(weight, torch.zeros_like(weight))
        return self._tied


class InLoss(nn.Module):
    """Stands for the output layer in the list of layers: it runs in the loss function."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.output = output

    def forward(self, stream: Stream) -> Stream:
        """The stream, unchanged."""
        return stream


def _fresh_buffer(engine: Any, index: int, shape: list[int], dtype: torch.dtype) -> Tensor:
    """Replaces the engine's method of that name, which returns used buffers of any dtype."""
    return torch.zeros(shape, dtype=dtype, device=engine.device)
