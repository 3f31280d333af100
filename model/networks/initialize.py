"""Weight initialization of all networks.

Each parameter is drawn in full from a generator seeded by its name, so that neither the order of
construction nor the parallel layout changes it. Modulations start at zero (adaLN-zero, Peebles &
Xie 2023), so that every block is the identity; so does an untied head, so that the first loss is
exactly log V.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.networks.linears import LayerFactory


def initialize(
    names: Mapping[nn.Parameter, str], factory: LayerFactory, seed: int, embedding_std: float
) -> None:
    """Initialize parameters in place, each from its name, its unsharded shape and ``seed``.

    Parameters on the meta device have no values and are skipped.
    """
    for parameter, name in names.items():
        if parameter.is_meta:
            continue
        whole = initial_value(name, factory.whole_shape(parameter), seed, embedding_std)
        with torch.no_grad():
            parameter.copy_(factory.part(parameter, whole))


def initial_value(name: str, shape: torch.Size, seed: int, embedding_std: float) -> Tensor:
    """The unsharded initial value of a parameter, float32 on the CPU."""
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
