"""The denoiser under DeepSpeed's plain engine: data and tensor parallelism, ZeRO 1 to 3."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from model.objectives import Noisy
from pretrain.parallel import deepspeed
from pretrain.parallel.engine import Engine, Sums
from pretrain.parallel.mesh import Mesh


class ZeroEngine(Engine):
    """Runs forward and backward micro-batch by micro-batch, without a pipeline."""

    def _initialize(self, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Any:
        return deepspeed.initialize(
            model=self._denoiser,
            optimizer=optimizer,
            config=settings,
            mpu=ModelParallelUnit(self._mesh) if self._mesh.tensor_size > 1 else None,
            dist_init_required=False,
        )

    def _run(self, micro_batches: Sequence[Noisy], scales: Mapping[str, float]) -> Sums:
        if not self._denoiser.training:  # a walk over all modules, which costs milliseconds
            self._engine.train()
        sums = self._no_sums()
        for number, noisy in enumerate(micro_batches):
            outputs = self._engine(noisy)
            loss = sums.add(self._denoiser.prediction(outputs), noisy, number, scales)
            self._engine.backward(loss)
            self._engine.step()
        return sums


class ModelParallelUnit:
    """The mesh as DeepSpeed's ``mpu``; without a pipeline, "model parallel" means tensor."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def get_data_parallel_group(self) -> dist.ProcessGroup:  # noqa: D102
        return self._mesh.data_group

    def get_data_parallel_rank(self) -> int:  # noqa: D102
        return self._mesh.data_rank

    def get_data_parallel_world_size(self) -> int:  # noqa: D102
        return self._mesh.data_size

    def get_tensor_model_parallel_group(self) -> dist.ProcessGroup:  # noqa: D102
        return self._mesh.tensor_group

    def get_tensor_model_parallel_rank(self) -> int:  # noqa: D102
        return self._mesh.tensor_rank

    def get_tensor_model_parallel_world_size(self) -> int:  # noqa: D102
        return self._mesh.tensor_size

    get_model_parallel_group = get_tensor_model_parallel_group
    get_model_parallel_rank = get_tensor_model_parallel_rank
    get_model_parallel_world_size = get_tensor_model_parallel_world_size
