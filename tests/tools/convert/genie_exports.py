"""Exported encoder-decoders of every kind, and texts for them."""

from pathlib import Path
from typing import Any

import torch
from small_models import configured, random_weights, run_of, save_weights
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
)

from model.networks.base import Network
from model.networks.build import build
from model.objectives.genie import Genie

SHAPE: dict[str, Any] = {"num_encoder_layers": 2, "embedding_width": 12, "max_positions": 20}

RELEASE: dict[str, Any] = {"projection": "tanh", "time": "additive", "positions": "learned"}

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "modern": ({"output": "mixture"}, {"mlp": "swiglu", "norm": "rmsnorm"}, {}),
    "release": ({**RELEASE, "ignore_source_padding": True}, {"mlp": "geglu"}, {"prediction": "v"}),
    "bert": ({"encoder": "bert"}, {}, {"schedule": "cosine", "times": "loss_second_moment"}),
    "plain": ({}, {}, {}),
    "drafts": ({"self_conditioning": True}, {"mask_id": 3}, {"self_conditioning": 0.5}),
}

PAD, END = 1, 2

LENGTHS = {"source_length": 9, "sequence_length": 7}


def save(path: Path, variant: str, objective: dict[str, Any] | None = None) -> Network:
    """A checkpoint of a random encoder-decoder."""
    shape, model, noising = VARIANTS[variant]
    config = configured(name="encoder_decoder", **SHAPE, **shape, **model)
    network = random_weights(build(config))
    blocks = {
        "objective": {"name": "genie", "num_steps": 40, **noising, **(objective or {})},
        "data": {"packing": "pairs", **LENGTHS},
    }
    save_weights(path, network, run_of(network.config, **blocks), 20_000)
    return network


def model_of(path: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True).eval()


def sources() -> tuple[Tensor, Tensor]:
    """Ids ``[3, 9]`` and their padding mask."""
    ids = torch.randint(4, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    valid = torch.arange(9) < torch.tensor([[9], [6], [3]])
    return ids.masked_fill(~valid, PAD), valid


def some_targets() -> Tensor:
    """Ids ``[3, 7]``."""
    return torch.randint(4, 90, (3, 7), generator=torch.Generator().manual_seed(3))


def objective_of(variant: str) -> Genie:
    return Genie(num_steps=40, **VARIANTS[variant][2])
