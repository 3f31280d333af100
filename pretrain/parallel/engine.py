"""The trainer's view of an engine: optimizer steps, predictions, and what the rank owns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model import annealing
from model.draws import Draws
from model.objectives import LEVEL_BUCKETS, LossSums, Noisy, Objective, sum_losses
from model.prediction import AnyPrediction
from model.query import Query
from pretrain.config import RunConfig
from pretrain.layout import micro_batch, positions
from pretrain.memory import PERSISTENT, bucket_elements
from pretrain.optim import adamw
from pretrain.parallel.forward import Forward, local_denoiser
from pretrain.parallel.mesh import Mesh
from pretrain.parallel.owned import Owned
from pretrain.parallel.places import places


class Engine(ABC):
    """A denoiser on its mesh, under one of DeepSpeed's engines.

    Attributes:
        owned: masters and moments of this rank.
        predict: the :class:`Forward` pass, to be called by all ranks of a model together.
    """

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
        self._engine = self._initialize(optimizer, settings(config, mesh, num_parameters))
        self.owned = Owned(self._engine.optimizer, where)
        self.owned.begin(config.seed, model.initial_embedding_std)
        self._forward = Forward(self._denoiser, mesh)

    @abstractmethod
    def _initialize(self, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Any:
        """Hand the denoiser over to DeepSpeed; its engine."""

    @abstractmethod
    def _run(self, micro_batches: Sequence[Noisy], scale: float) -> "Sums":
        """Forward, backward and one optimizer step over this rank's micro-batches."""

    def train_step(
        self, micro_batches: Sequence[Noisy], count: int, learning_rate: float
    ) -> LossSums:
        """One optimizer step; the sums of the loss on ranks that have it, elsewhere zeros.

        ``sample_loss`` of the sums is ``[micro-batches, samples]``.

        ``count`` is the number of tokens of the *global* batch. DeepSpeed divides by the
        accumulation and averages over data-parallel ranks, so each micro-batch's sum is
        scaled by both: the gradient is that of one sum divided once by one count.
        """
        self.owned.set_learning_rate(learning_rate)
        if self._objective.drafts:
            micro_batches = [self._with_draft(noisy) for noisy in micro_batches]
        scale = self._mesh.data_size * self._num_micro_batches / count
        sums = self._run(micro_batches, scale)
        return sums.total

    def open_attention(self, draws: Draws, step: int) -> None:
        """Before a step: let attention see as much as the step asks for."""
        length = self._config.data.sequence_length
        annealing.open_attention(self._denoiser, self._config.model, draws, step, length)

    def predict(self, query: Query) -> AnyPrediction:
        """The prediction with the present weights, without gradient."""
        self._denoiser.eval()
        return self._forward.predict(query)

    def _no_sums(self) -> "Sums":
        return Sums(self._objective, self._mesh.device, self._num_micro_batches, self._samples)

    def remember(self, query: Query) -> Query:
        """See :meth:`Forward.remember`."""
        self._denoiser.eval()
        return self._forward.remember(query)

    def round(self, x_ME: Tensor) -> Tensor:
        """See :meth:`Forward.round`."""
        return self._forward.round(x_ME)

    def nearest(self, x_ME: Tensor) -> Tensor:
        """See :meth:`Forward.nearest`."""
        return self._forward.nearest(x_ME)

    def _with_draft(self, noisy: Noisy) -> Noisy:
        """Which all ranks of a model make together."""
        draft = self.predict(self._objective.draft_query(noisy))
        return self._objective.with_draft(noisy, draft)

    def sample_losses(self, config: RunConfig, step: int, sums: LossSums) -> Tensor:
        """The mean loss of each sample of a step's global batch, ``[N]`` in stream order."""
        mesh, first = self._mesh, (step - 1) * config.global_batch
        losses_N = torch.zeros(config.global_batch, device=mesh.device)
        mine = positions(config, step, mesh.data_rank, mesh.data_size)
        for number, part in enumerate(mine):
            losses_N[part.start - first : part.stop - first] = sums.sample_loss[number]
        return mesh.total(losses_N)

    def compile(self) -> None:
        """Run the forward pass through torch.compile from here on."""
        self._engine.compile()

    @property
    def grad_norm(self) -> float:
        """The global gradient norm of the last step, before clipping."""
        return float(self._engine.get_global_grad_norm())

    @property
    def loss_scaler(self) -> dict[str, Any]:
        """The state of fp16's loss scaling: plain numbers; empty in other precisions."""
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
    """Loss sums of the micro-batches of a step.

    Args:
        num, samples: micro-batches, and samples in each.
    """

    def __init__(self, objective: Objective, device: torch.device, num: int, samples: int) -> None:
        self._objective = objective
        self.total = LossSums(
            loss=torch.zeros((), device=device),
            level_loss=torch.zeros(LEVEL_BUCKETS, device=device),
            level_count=torch.zeros(LEVEL_BUCKETS, device=device),
            sample_loss=torch.zeros(num, samples, device=device),
        )

    def add(self, prediction: AnyPrediction, noisy: Noisy, number: int) -> Tensor:
        """The sum of the loss of micro-batch ``number``, with gradient."""
        losses_M = self._objective.token_losses(prediction, noisy)
        sums = sum_losses(losses_M, noisy)
        self.total.loss.add_(sums.loss.detach())
        self.total.level_loss.add_(sums.level_loss)
        self.total.level_count.add_(sums.level_count)
        self.total.sample_loss[number] = sums.sample_loss
        return sums.loss


def settings(config: RunConfig, mesh: Mesh, num_parameters: int) -> dict[str, Any]:
    """DeepSpeed's configuration, for a rank that holds so many parameters."""
    found: dict[str, Any] = {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch(config, mesh.data_size),
        "gradient_clipping": config.optim.clip,
        "zero_optimization": {
            "stage": max(1, config.parallel.zero_stage),
            "stage3_param_persistence_threshold": PERSISTENT,
            # By default its buffers are for the largest models, whatever the model.
            "reduce_bucket_size": bucket_elements(num_parameters),
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    if config.precision == "bf16":
        # Each gradient goes into its fp32 sum at once: none is kept twice, and those of
        # parameters that a pipeline's loss function uses are not lost.
        found["bf16"] = {"enabled": True, "immediate_grad_update": True}
        found["data_types"] = {"grad_accum_dtype": "fp32"}
    elif config.precision == "fp16":
        found["fp16"] = {"enabled": True}
    return found


def build(config: RunConfig, mesh: Mesh) -> Engine:
    """The engine for a layout: DeepSpeed's pipeline where there are stages, else plain ZeRO."""
    if mesh.pipe_size > 1:
        from pretrain.parallel.pipeline import PipelineEngine

        return PipelineEngine(config, mesh)
    from pretrain.parallel.zero import ZeroEngine

    return ZeroEngine(config, mesh)
