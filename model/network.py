"""The denoiser of a configuration, whatever its architecture, and what it answers."""

from torch import Tensor

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


class Whole:
    """A whole network on one device, as samplers and the evaluator ask it."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def predict(self, query: Query) -> AnyPrediction:
        """The answer to a query."""
        return predict(self._network, query)

    def remember(self, query: Query) -> Query:
        """The query with what is the same at every level worked out."""
        return self._network.remember(query)

    def round(self, x_ME: Tensor) -> Tensor:
        """See :meth:`model.seq2seq_layers.Exit.round`."""
        assert isinstance(self._network, Seq2Seq)
        return self._network.output.round(x_ME)

    def nearest(self, x_ME: Tensor) -> Tensor:
        """See :meth:`model.seq2seq_layers.Exit.nearest`; the embeddings."""
        assert isinstance(self._network, Seq2Seq)
        return self._network.output.nearest(x_ME)[1]
