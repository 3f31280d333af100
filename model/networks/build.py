"""Build a network from its configuration."""

from typing import Any

from model.networks.base import Network
from model.networks.config import ModelConfig
from model.networks.linears import LayerFactory


def build(
    config: ModelConfig,
    *,
    seed: int = 0,
    factory: LayerFactory | None = None,
    span: range | None = None,
    recompute_every: int = 0,
) -> Network:
    """Build the network; ``span`` selects layers, ``factory`` shards them. See :class:`Network`."""
    network: Any = config.network
    made: Network = network(
        config, seed=seed, factory=factory, span=span, recompute_every=recompute_every
    )
    return made
