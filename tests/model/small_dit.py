"""Small denoisers of every kind, and what is given to them, for the tests of their parts."""

from typing import Any

import pytest
import torch
from asking import configured
from torch import Tensor

from model.networks.base import Network
from model.networks.config import ModelConfig

VOCAB = 11

LENGTH = 7

VARIANTS: list[dict[str, Any]] = [
    {},
    {"mlp": "swiglu"},
    {"norm": "rmsnorm"},
    {"tied_head": True},
    {"mask_id": 3},
    {"time_conditioning": True},
    {"mlp": "swiglu", "norm": "rmsnorm", "tied_head": True, "hide_padding": True, "mask_id": 0},
    {"num_heads": 4, "num_kv_heads": 2, "qk_norm": True, "head_size": 6, "qkv_bias": True},
]

PLAIN: list[dict[str, Any]] = [
    {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", "num_kv_heads": 1},
    {
        "name": "transformer",
        "norm_first": False,
        "norm_bias": True,
        "num_positions": LENGTH,
        "attention_bias": True,
        "gelu": "erf",
    },
]


def named(settings: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in settings.items()) or "plain"


variants = pytest.mark.parametrize("settings", VARIANTS, ids=named)

all_blocks = pytest.mark.parametrize("settings", VARIANTS + PLAIN, ids=named)


def config(**settings: Any) -> ModelConfig:
    defaults = {"vocab_size": VOCAB, "width": 16, "num_layers": 2, "num_heads": 2}
    if "name" not in settings:
        defaults["conditioning_width"] = 8
    return configured(**{**defaults, **settings})


def perturbed(model: Network, scale: float = 0.2) -> Network:
    """The model with every weight moved, so that no branch is closed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(model: ModelConfig, rows: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(VOCAB, (rows, LENGTH), generator=generator)
    ids[:, ::3] = model.mask
    return ids, torch.linspace(0.2, 0.9, rows)[:, None]


def excluded_rows(model: ModelConfig) -> list[int]:
    return sorted({model.mask, *range(VOCAB, model.num_rows)})


def allowed_rows(model: ModelConfig) -> list[int]:
    return [row for row in range(VOCAB) if row != model.mask]
