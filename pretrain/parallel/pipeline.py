"""The denoiser under DeepSpeed's pipeline engine, which runs the 1F1B schedule.

What its own ways would break is set right here. Which layers a stage holds follows from
their cost. The head, which runs at the noisy positions only, belongs to the loss. Buffers
are made anew for every tensor, since DeepSpeed reuses them by their place in the tuple
and not by their kind. A stage with several outputs must not checkpoint reentrantly. (And
see ``immediate_grad_update`` in :func:`pretrain.parallel.settings.deepspeed_settings`.)
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
    """A stage of several: micro-batches follow one another through them."""

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
        """On the last stage: the loss of micro-batch ``number``, as DeepSpeed's weight asks."""
        noisy = self._micro_batches[int(number)]
        prediction = self._denoiser.prediction(self._denoiser.finish(stream, noisy))
        return self._sums.add(prediction, noisy, int(number), self._scales)


class Stages(deepspeed.PipelineModule):
    """DeepSpeed's list of layers, of which this rank has those that its denoiser has."""

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
        """The stage's layers; what of their output has no gradient, being frozen, takes one.

        DeepSpeed sends back a gradient for each floating tensor that crosses.
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
        """One weight on first and last stage: its gradients are summed, its norm counted once."""
        ends = torch.tensor([mesh.stage(0), mesh.stage(mesh.pipe_size - 1)])
        all_gather_object = [torch.empty_like(ends) for _ in range(mesh.size)]
        dist.all_gather(all_gather_object, ends)
        pairs = sorted({tuple(pair.tolist()) for pair in all_gather_object})
        for pair in pairs:
            group = dist.new_group(pair)
            if mesh.rank in pair:
                at_first = mesh.is_first_stage
                weight: Any = (denoiser.embedding if at_first else denoiser.output).weight
                weight.ds_pipe_replicated = not at_first
                if weight.requires_grad:
                    self._tied = [(weight, group)]

    def get_tied_weights_and_groups(self) -> list[tuple[Tensor, dist.ProcessGroup]]:
        """What DeepSpeed sums after the last backward pass of a step.

        It leaves out a weight without gradient, and then its other end waits for ever: a loss
        that does not read the table on one stage has gradient zero there.
        """
        for weight, _ in self._tied:
            if weight.grad is None:
                torch.autograd.backward(weight, torch.zeros_like(weight))
        return self._tied


class InLoss(nn.Module):
    """The place of the output layer in the list: its work is done in the loss function."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.output = output

    def forward(self, stream: Stream) -> Stream:
        """The stream, as it is."""
        return stream


def _fresh_buffer(engine: Any, index: int, shape: list[int], dtype: torch.dtype) -> Tensor:
    """In place of the engine's method of that name, which returns used buffers of any dtype."""
    return torch.zeros(shape, dtype=dtype, device=engine.device)
