"""Attention that opens from causal to full while a causal model becomes a denoiser.

At step n of N a query sees all earlier keys, and each later one with probability n / N
(Gong et al. 2025, "Scaling diffusion language models via adaptation from autoregressive
models", section 3.2). The mask of a step is drawn for the step and serves all samples, heads
and layers, so that no layout can change it.
"""

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.draws import Draws
from model.layers import Attention


def seen(
    draws: Draws, step: int, steps: int, length: int, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Which keys (columns) each query sees at a step (from 1), bool ``[L, L]``; None for all."""
    if step >= steps:
        return None
    place = torch.arange(length, device=device)
    coordinate = place[:, None] * length + place
    uniform_LL = draws.uniform_at("annealing", torch.full_like(coordinate, step), coordinate)
    return (place <= place[:, None]) | (uniform_LL < step / steps)


def open_attention(
    network: nn.Module, config: ModelConfig, draws: Draws, step: int, length: int
) -> None:
    """Let a network's attention train at ``step`` as far open as it then should be."""
    if not config.causal_annealing_steps:
        return
    device = next(network.parameters()).device
    seen_LL = seen(draws, step, config.causal_annealing_steps, length, device)
    for module in network.modules():
        if isinstance(module, Attention):
            module.seen_LL = seen_LL
