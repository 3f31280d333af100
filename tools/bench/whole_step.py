"""A whole training step in plain PyTorch: the step of :mod:`tools.bench.steps`, and clipping.

This is the yardstick of `parallel`, which asks what the engines cost beside it, and what
`gpu` times where no engine is installed. Nothing of :mod:`pretrain.parallel` is imported.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.draws import Draws
from model.networks.base import Network
from model.networks.build import build
from model.networks.config import ModelConfig
from model.prediction import Read
from model.query import Query
from pretrain.config import RunConfig
from pretrain.data_config import DataConfig
from pretrain.precision import DTYPES
from tools.bench.steps import OBJECTIVE, MasterWeights, OurStep, our_loss


class ClippedWeights(MasterWeights):
    """Weights, fp32 masters and AdamW, before whose step the gradient is clipped."""

    def __init__(self, denoiser: Network, dtype: torch.dtype, clip: float) -> None:
        super().__init__(denoiser, dtype)
        masters = list(denoiser.parameters())

        def clip_gradients(*_: object) -> None:
            torch.nn.utils.clip_grad_norm_(masters, clip)

        self._optimizer.register_step_pre_hook(clip_gradients)


def run_config(model: ModelConfig, batch: int, length: int, precision: Any) -> RunConfig:
    """The default optimizer, and no corpus."""
    return RunConfig(
        steps=1_000_000,
        global_batch=batch,
        precision=precision,
        model=model,
        objective=OBJECTIVE,
        data=DataConfig(corpus="none", sequence_length=length),
    )


def synthetic_tokens(config: RunConfig) -> Tensor:
    """``[N, L]``: the same ids at every step, which draws other noise for them."""
    shape = (config.global_batch, config.data.sequence_length)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.model.vocab_size, shape, generator=generator)


def plain_step(config: RunConfig, device: torch.device) -> tuple[OurStep, Network]:
    """The step, and the denoiser that it trains."""
    denoiser = build(config.model, seed=config.seed).to(device)
    trained = ClippedWeights(denoiser, DTYPES[config.precision], config.optim.clip)
    return OurStep(trained, synthetic_tokens(config).to(device)), trained.denoiser


def present_loss(config: RunConfig, ask: Callable[[Query, Read[Tensor]], Tensor]) -> float:
    """Nats a token of the present weights, on one corrupted batch."""
    tokens_BL = synthetic_tokens(config)
    valid_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
    batch = {"tokens": tokens_BL, "valid": valid_BL, "position": torch.arange(len(tokens_BL))}
    draws = Draws(seed=config.seed + 1, split="train", batch=len(tokens_BL))
    noisy = config.objective.corrupt(batch, draws, config.model)
    with torch.no_grad():
        return float(our_loss(ask, noisy))
