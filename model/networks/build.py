"""The network of a configuration, whatever its architecture."""

from model.networks.base import Network
from model.networks.config import ModelConfig
from model.networks.dit import Denoiser
from model.networks.encoder_decoder import Seq2Seq
from model.networks.linears import LayerFactory


def build(
    config: ModelConfig,
    *,
    seed: int = 0,
    factory: LayerFactory | None = None,
    span: range | None = None,
    recompute_every: int = 0,
) -> Network:
    """The network, or the part of it that ``span`` and ``factory`` make of it."""
    kind = Denoiser if config.seq2seq is None else Seq2Seq
    return kind(config, seed=seed, factory=factory, span=span, recompute_every=recompute_every)
