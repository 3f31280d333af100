"""The denoiser under DeepSpeed ZeRO: one optimizer step, and views of what is sharded.

Of the optimizers that DeepSpeed builds, ZeRO 1 and 2 (``DeepSpeedZeroOptimizer``) and
bf16 ZeRO 1 (``BF16_Optimizer``) are used; each rank owns flat fp32 masters, into which
the masters, moments and averages of the parameters are views.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from model.denoiser import Denoiser
from model.initialize import initial_value
from model.objectives import LEVEL_BUCKETS, LossSums, Noisy, Objective, sum_losses
from model.prediction import Prediction
from pretrain.config import RunConfig
from pretrain.layout import micro_batch
from pretrain.optim import adamw
from pretrain.parallel import deepspeed
from pretrain.parallel.mesh import Mesh
from pretrain.ranges import Fragment, Range

MicroBatch = tuple[Noisy, Tensor]
"""A corrupted micro-batch and its ``valid_BL``."""


class ZeroEngine:
    """The trainer's view of a DeepSpeed engine."""

    def __init__(self, denoiser: Denoiser, objective: Objective, config: RunConfig, mesh: Mesh):
        self._objective = objective
        self._mesh = mesh
        self._micro_batches = (
            config.global_batch // mesh.data_size // micro_batch(config, mesh.data_size)
        )
        self._names = {parameter: name for name, parameter in denoiser.named_parameters()}
        self._shapes = {name: tuple(p.shape) for p, name in self._names.items()}
        optimizer = adamw(denoiser, config.optim)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=denoiser,
            optimizer=optimizer,
            config=_settings(config, mesh),
            dist_init_required=False,
        )
        self._inner = self.optimizer.optimizer
        self.fragments = list(self._find_fragments())
        self._create_moments()
        if config.precision != "fp32":
            self._restore_exact_masters(config.seed, config.model.initial_embedding_std)

    # -- training -------------------------------------------------------------------------

    def train_step(
        self, micro_batches: Sequence[MicroBatch], count: int, learning_rate: float
    ) -> LossSums:
        """One optimizer step over this rank's micro-batches; this rank's sums of the loss.

        ``count`` is the number of tokens of the *global* batch. DeepSpeed divides by the
        accumulation and averages over data-parallel ranks, so each micro-batch's sum is
        scaled by both: the gradient is that of one sum divided once by one count.
        """
        self.engine.train()
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        scale = self._mesh.data_size * self._micro_batches / count
        loss = torch.zeros((), device=self._mesh.device)
        level_loss = torch.zeros(LEVEL_BUCKETS, device=self._mesh.device)
        level_count = torch.zeros(LEVEL_BUCKETS, device=self._mesh.device)
        for noisy, valid_BL in micro_batches:
            logits = self.engine(noisy.ids_BL, noisy.level_BK, noisy.where_BL, valid_BL)
            losses_M = self._objective.token_losses(Prediction(logits), noisy)
            sums = sum_losses(losses_M, noisy, valid_BL)
            self.engine.backward(sums.loss * scale)
            self.engine.step()
            loss += sums.loss.detach()
            level_loss += sums.level_loss
            level_count += sums.level_count
        return LossSums(loss=loss, level_loss=level_loss, level_count=level_count)

    def compile(self) -> None:
        """Run the forward pass through torch.compile from here on."""
        self.engine.compile()

    @property
    def grad_norm(self) -> float:
        """The global gradient norm of the last step, before clipping."""
        return float(self.engine.get_global_grad_norm())

    @property
    def skipped(self) -> bool:
        """Whether the last step was skipped, its gradient not being finite."""
        return bool(self.optimizer.overflow)

    @torch.no_grad()
    def predict(
        self, ids_BL: Tensor, level_BK: Tensor, where_BL: Tensor, valid_BL: Tensor
    ) -> Tensor:
        """Logits ``[M, R]`` with the present weights, without gradient."""
        self.engine.eval()
        return self.engine.module(ids_BL, level_BK, where_BL, valid_BL)

    # -- what this rank owns --------------------------------------------------------------

    @property
    def masters(self) -> list[Tensor]:
        """The flat fp32 masters of this rank, one per parameter group."""
        return [master.detach() for master in self._master_parameters]

    def moments(self, key: str) -> list[Tensor]:
        """``exp_avg`` or ``exp_avg_sq``, laid out like the masters."""
        return [self._inner.state[master][key] for master in self._master_parameters]

    def set_optimizer_step(self, step: int) -> None:
        """Set Adam's count of steps, from which its bias correction follows."""
        for master in self._master_parameters:
            self._inner.state[master]["step"].fill_(step)

    def refresh(self) -> None:
        """Give every rank weights that follow from the masters as they now are."""
        self.optimizer.update_lp_params()

    @property
    def _master_parameters(self) -> list[Tensor]:
        if hasattr(self.optimizer, "single_partition_of_fp32_groups"):
            return list(self.optimizer.single_partition_of_fp32_groups)
        return list(self.optimizer.fp32_groups_flat_partition)

    def _find_fragments(self) -> Iterator[Fragment]:
        for parameter, name in self._names.items():
            mapping = parameter._hp_mapping  # type: ignore[attr-defined]
            if mapping is None:  # another rank owns all of it
                continue
            owned = Range(
                name=name,
                shape=self._shapes[name],
                start=mapping.lp_fragment_address.start,
                num=mapping.lp_fragment_address.numel,
            )
            yield Fragment(
                range=owned,
                group=mapping.param_group_index,
                offset=mapping.hp_fragment_address.start,
            )

    def _restore_exact_masters(self, seed: int, embedding_std: float) -> None:
        """Begin at the exact fp32 initial values; DeepSpeed's masters copy rounded weights."""
        for fragment in self.fragments:
            owned = fragment.range
            shape = torch.Size(owned.shape)
            value = initial_value(owned.name, shape, seed, embedding_std).flatten()
            fragment.of(self.masters).copy_(value[owned.start : owned.start + owned.num])
        self.refresh()

    def _create_moments(self) -> None:
        """Moments as a fresh AdamW would make them at its first step, so that all can be read."""
        for master in self._master_parameters:
            state = self._inner.state[master]
            if "exp_avg" not in state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(master)
                state["exp_avg_sq"] = torch.zeros_like(master)


def _settings(config: RunConfig, mesh: Mesh) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch(config, mesh.data_size),
        "gradient_clipping": config.optim.clip,
        "zero_optimization": {"stage": max(1, config.parallel.zero_stage)},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    if config.precision == "bf16":
        settings["bf16"] = {"enabled": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    elif config.precision == "fp16":
        settings["fp16"] = {"enabled": True}
    return settings
