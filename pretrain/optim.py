"""AdamW over groups of parameters with and without weight decay, and its learning rate."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pretrain.optim_config import OptimConfig


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 1) of ``steps``: a pure function, without state."""
    schedule = config.schedule
    if step < schedule.warmup:
        return config.lr * step / schedule.warmup
    return config.lr * _after_warmup(config, step, steps)


def _after_warmup(config: OptimConfig, step: int, steps: int) -> float:
    schedule = config.schedule
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "cosine":
        done = (step - schedule.warmup) / max(1, steps - schedule.warmup)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    else:
        share = min(1.0, (steps - step) / max(1.0, schedule.decay_share * steps))
    return schedule.final + (1 - schedule.final) * share


def parameter_groups(
    names: Mapping[nn.Parameter, str], weight_decay: float
) -> list[dict[str, object]]:
    """A group of matrices, with weight decay, and one of norms, biases and embeddings, without.

    Frozen parameters are in no group, and empty groups are left out.
    """
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for parameter, name in names.items():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and not name.endswith("tokens.weight")
        (decayed if is_matrix else kept).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def adamw(names: Mapping[nn.Parameter, str], config: OptimConfig) -> torch.optim.AdamW:
    """PyTorch's AdamW over the groups of parameters with these names."""
    groups = parameter_groups(names, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
