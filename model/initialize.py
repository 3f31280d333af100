"""All initial weights, in one function.

Each parameter is drawn whole from a generator seeded by its own name, so that neither
the order of construction nor a layout can change it. Everything that ends a residual
branch starts at zero (adaLN-zero, Peebles & Xie 2023): the modulations, so that every
block is the identity, and an untied head, so that the first loss is exactly log V.
"""

import hashlib

import torch
from torch import Tensor, nn


def initialize(module: nn.Module, seed: int, embedding_std: float) -> None:
    """Set every parameter of ``module`` in place, by its name, shape and ``seed``.

    Parameters on the meta device have no values and are passed over.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            continue
        with torch.no_grad():
            parameter.copy_(initial_value(name, parameter.shape, seed, embedding_std))


def initial_value(name: str, shape: torch.Size, seed: int, embedding_std: float) -> Tensor:
    """The whole initial tensor of a parameter, float32 on the CPU."""
    owner, _, kind = name.rpartition(".")
    layer = owner.rpartition(".")[2]
    if kind == "bias" or layer in ("modulation", "head"):
        return torch.zeros(shape, device="cpu")
    if layer.endswith("norm"):
        return torch.ones(shape, device="cpu")
    std = embedding_std if layer == "tokens" else shape[-1] ** -0.5
    value = torch.empty(shape, device="cpu")
    return value.normal_(0.0, std, generator=_generator(name, seed))


def _generator(name: str, seed: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
