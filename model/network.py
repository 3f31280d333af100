"""The denoiser of a configuration, whatever its architecture, and what it answers."""

from model.config import ModelConfig
from model.denoiser import Denoiser
from model.linears import LayerFactory
from model.prediction import AnyPrediction, prediction_of
from model.query import Query
from model.seq2seq import Seq2Seq

Network = Denoiser | Seq2Seq
"""Both are lists of layers with the same methods around them."""


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


def predict(network: Network, query: Query) -> AnyPrediction:
    """What a whole network, on one device, predicts."""
    return prediction_of(network.answer(query))
