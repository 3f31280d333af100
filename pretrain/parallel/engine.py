"""Interface of an engine: optimizer steps, forward passes, and this rank's optimizer shards."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from model.networks.attention_layouts import AttentionLayout
from model.objectives import LEVEL_BUCKETS, LossSums, Noisy, Objective, sum_losses
from model.prediction import OWN, Answer, Networks, Prediction, Read
from model.query import Query
from pretrain.config import RunConfig
from pretrain.optim import adamw
from pretrain.parallel.batch import micro_batch, positions
from pretrain.parallel.frozen_network import FrozenNetwork
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.network import DistributedNetwork, local_denoiser
from pretrain.parallel.optimizer_shards import OptimizerShards
from pretrain.parallel.settings import deepspeed_settings
from pretrain.parallel.shards import places


class Engine(ABC):
    """The trained network on its mesh, under one of DeepSpeed's engines.

    Attributes:
        shards: masters and moments of this rank.
        networks: frozen networks of the objective, once they are loaded
            (:mod:`pretrain.checkpoint.frozen_networks`).
    """

    networks: Mapping[str, FrozenNetwork] = MappingProxyType({})

    def __init__(self, config: RunConfig, mesh: Mesh) -> None:
        model = config.model
        self._mesh, self._objective, self._config = mesh, config.objective, config
        self._samples = micro_batch(config, mesh.data_size)
        self._num_micro_batches = config.global_batch // mesh.data_size // self._samples
        self._denoiser = local_denoiser(
            model, config.parallel, config.data.sequence_length, mesh, config.seed
        )
        where = places(self._denoiser, mesh.tensor_rank)
        optimizer = adamw(self._denoiser.parameter_names(), config.optim)
        num_parameters = sum(parameter.numel() for parameter in where)
        self._engine = self._initialize(
            optimizer, deepspeed_settings(config, mesh.data_size, num_parameters)
        )
        self.shards = OptimizerShards(self._engine.optimizer, where, mesh)
        self.shards.begin(config.seed, model.initial_embedding_std)
        self._forward = DistributedNetwork(self._denoiser, mesh)

    @abstractmethod
    def _initialize(self, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Any:
        """Build DeepSpeed's engine around the denoiser."""

    @abstractmethod
    def _run(self, micro_batches: Sequence[Noisy], scales: Mapping[str, float]) -> "Sums":
        """Forward, backward and one optimizer step over this rank's micro-batches."""

    def train_step(
        self,
        micro_batches: Sequence[Noisy],
        counts: Mapping[str, int],
        learning_rate: float,
        layout: AttentionLayout,
    ) -> LossSums:
        """Take one optimizer step.

        Returns:
            Sums of the losses on ranks that compute them, zeros on others; ``seen`` is
            ``[micro-batches, samples, K]``.

        Args:
            layout: attention layout of all micro-batches; stages without a batch need it too.
            counts: by term, of the *global* batch. DeepSpeed divides by the accumulation and
                averages over data-parallel ranks, so each micro-batch's sum is scaled by both:
                the gradient is that of one sum divided once by one count.
        """
        self.shards.set_learning_rate(learning_rate)
        self._denoiser.attend(layout)
        parts = self._mesh.data_size * self._num_micro_batches
        scales = {
            name: weight * (parts / counts[name]) if counts[name] else 0.0
            for name, weight in self._objective.terms.items()
        }
        return self._run(micro_batches, scales).total

    def ask(self, query: Query, read: Read[Answer], network: str = OWN) -> Answer:
        """See :meth:`DistributedNetwork.ask`; a collective of the ranks of a model."""
        others = {name: frozen.ask for name, frozen in self.networks.items()}
        return Networks(self._ask_own, others)(query, read, network)

    def _ask_own(self, query: Query, read: Read[Answer]) -> Answer:
        self._denoiser.eval()
        return self._forward.ask(query, read)

    def _no_sums(self) -> "Sums":
        return Sums(self._objective, self._mesh.device, self._num_micro_batches, self._samples)

    def encode(self, query: Query) -> Query:
        """See :meth:`DistributedNetwork.encode`."""
        self._denoiser.eval()
        return self._forward.encode(query)

    def seen(self, config: RunConfig, step: int, sums: LossSums) -> Tensor:
        """``LossSums.seen`` of a step's global batch, ``[N, K]`` in stream order, on every rank."""
        mesh, first = self._mesh, (step - 1) * config.global_batch
        seen_NK = torch.zeros(config.global_batch, sums.seen.shape[-1], device=mesh.device)
        mine = positions(config, step, mesh.data_rank, mesh.data_size)
        for number, part in enumerate(mine):
            seen_NK[part.start - first : part.stop - first] = sums.seen[number]
        return mesh.total(seen_NK)

    def compile(self) -> None:
        """Run the forward pass through torch.compile from here on."""
        self._engine.compile()

    @property
    def grad_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        return float(self._engine.get_global_grad_norm())

    @property
    def loss_scaler(self) -> dict[str, Any]:
        """State of fp16's loss scaling as plain numbers; empty in other precisions."""
        scaler = getattr(self._engine.optimizer, "loss_scaler", None)
        if self._engine.fp16_enabled() and scaler is not None:
            return {k: v for k, v in vars(scaler).items() if isinstance(v, bool | int | float)}
        return {}

    @loss_scaler.setter
    def loss_scaler(self, state: dict[str, Any]) -> None:
        if self._engine.fp16_enabled():
            vars(self._engine.optimizer.loss_scaler).update(state)

    @property
    def skipped(self) -> bool:
        """Whether the last step was skipped, its gradient not being finite."""
        return bool(self._engine.optimizer.overflow)


class Sums:
    """Accumulates the loss sums of the micro-batches of a step.

    Args:
        num: micro-batches.
        samples: of each micro-batch.
    """

    def __init__(self, objective: Objective, device: torch.device, num: int, samples: int) -> None:
        self._objective = objective
        self.total = LossSums(
            terms={name: torch.zeros((), device=device) for name in objective.terms},
            level_loss=torch.zeros(LEVEL_BUCKETS, device=device),
            level_count=torch.zeros(LEVEL_BUCKETS, device=device),
            seen=torch.zeros(num, samples, objective.num_seen, device=device),
        )

    def add(
        self, prediction: Prediction, noisy: Noisy, number: int, scales: Mapping[str, float]
    ) -> Tensor:
        """Add micro-batch ``number``; returns the scaled sum of its losses, with gradient."""
        sums = sum_losses(self._objective, prediction, noisy)
        for name, value in sums.terms.items():
            self.total.terms[name].add_(value.detach())
        self.total.level_loss.add_(sums.level_loss)
        self.total.level_count.add_(sums.level_count)
        self.total.seen[number] = sums.seen
        first, *others = (scales[name] * value for name, value in sums.terms.items())
        return sum(others, start=first)
