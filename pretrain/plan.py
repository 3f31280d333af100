"""What a configuration amounts to, before anything runs: sizes, layout, memory, operations."""

from dataclasses import dataclass
from typing import Any

import torch

from model.config import ModelConfig
from model.denoiser import Denoiser
from model.flops import training_flops_per_token
from pretrain.config import RunConfig
from pretrain.layout import data_size, micro_batch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Numbers of one run; memory is per rank, in bytes.

    Args:
        tokens_per_step: positions of the global batch.
        activation_bytes: an estimate of what backward keeps, logits included.
    """

    parameters: int
    ranks: int
    micro_batch: int
    accumulation: int
    tokens_per_step: int
    flops_per_token: float
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return (
            self.weight_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.ema_bytes
            + self.activation_bytes
        )


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the denoiser, the padded rows of its embedding included."""
    with torch.device("meta"):
        return sum(p.numel() for p in Denoiser(config).parameters())


def plan(config: RunConfig, ranks: int | None) -> Plan:
    """The plan of a run on so many ranks (None: as many as the layout asks for).

    Raises:
        UserError: where the layout does not divide ranks or batch.
    """
    size = data_size(config, ranks)
    batch = micro_batch(config, size)
    parameters = count_parameters(config.model)
    weight = 4 if config.precision == "fp32" else 2
    length = config.data.sequence_length
    owned = -(-parameters // size)
    gradient_copies = parameters if config.parallel.zero_stage < 2 else owned
    return Plan(
        parameters=parameters,
        ranks=size * config.parallel.tensor * config.parallel.pipeline,
        micro_batch=batch,
        accumulation=config.global_batch // (size * batch),
        tokens_per_step=config.global_batch * length,
        flops_per_token=training_flops_per_token(config.model, length, head_share=0.5),
        weight_bytes=weight * parameters,
        gradient_bytes=4 * gradient_copies,
        optimizer_bytes=12 * owned,
        ema_bytes=4 * owned,
        activation_bytes=_activation_bytes(config.model, batch * length, weight),
    )


def _activation_bytes(config: ModelConfig, tokens: int, weight: int) -> int:
    """Tensors that the layers of :mod:`model.layers` keep for backward, per token."""
    mlp_tensors = 3 if config.mlp == "swiglu" else 2
    block = 15 * config.width + mlp_tensors * config.hidden_width
    logits = config.num_rows * (weight + 4) // 2  # at about half of the positions
    return tokens * (config.num_layers * block * weight + logits)


def describe(config: RunConfig, ranks: int | None) -> str:
    """The plan as lines for a reader."""
    numbers = plan(config, ranks)
    layout = config.parallel
    mib = 2.0**20
    return "\n".join(
        [
            f"parameters       {numbers.parameters:,}",
            f"layout           {numbers.ranks} ranks: data "
            f"{numbers.ranks // (layout.tensor * layout.pipeline)} x tensor {layout.tensor} x "
            f"pipeline {layout.pipeline}, ZeRO {max(1, layout.zero_stage)}, {config.precision}",
            f"batch            {config.global_batch} samples = {numbers.ranks} ranks x "
            f"{numbers.accumulation} micro-batches of {numbers.micro_batch}",
            f"tokens per step  {numbers.tokens_per_step:,}; of the run "
            f"{numbers.tokens_per_step * config.steps:,}",
            f"operations       {numbers.flops_per_token * numbers.tokens_per_step:.3g} "
            "floating-point operations per step",
            f"memory per rank  about {numbers.total_bytes / mib:,.0f} MiB: weights "
            f"{numbers.weight_bytes / mib:,.0f}, gradients {numbers.gradient_bytes / mib:,.0f}, "
            f"optimizer {numbers.optimizer_bytes / mib:,.0f}, EMA {numbers.ema_bytes / mib:,.0f}, "
            f"activations {numbers.activation_bytes / mib:,.0f} (estimated)",
        ]
    )


def as_json(config: RunConfig, ranks: int | None) -> dict[str, Any]:
    """The plan for programs."""
    numbers = plan(config, ranks)
    return {**vars(numbers), "total_bytes": numbers.total_bytes}
