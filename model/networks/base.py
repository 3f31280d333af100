"""Base class of all networks: an ordered list of layers.

One process runs the list from first to last; a pipeline stage builds only a span of it.
Parameter names (``layers.0.tokens.weight``, ...) are the same under every parallel layout.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from model.categorical import Categorical
from model.networks.attention_layouts import FULL, AttentionLayout, Cached
from model.networks.config import ModelConfig
from model.networks.frozen import freeze
from model.networks.initialize import initialize
from model.networks.layers import Checkpointed, HasLayout, HasTable, Stream
from model.networks.linears import DenseFactory, LayerFactory
from model.prediction import CATEGORICALS, Answer, Outputs, Prediction, Table
from model.query import Query


class Network(nn.Module, ABC):
    """A network as an ordered list of layers, or a pipeline stage's span of it.

    Args:
        factory: builds the wide layers, full or sharded.
        span: which layers to build, of ``config.total_layers``; by default all.
        recompute_every: activation checkpointing of every n-th block; 0 for none.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        seed: int = 0,
        factory: LayerFactory | None = None,
        span: range | None = None,
        recompute_every: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.last = config.total_layers - 1
        self.factory = factory or DenseFactory()
        self.span = range(self.last + 1) if span is None else span
        self.layers = nn.ModuleDict({str(index): self._build(index) for index in self.span})
        if config.shares_embedding and {0, self.last} <= set(self.span):
            self._share()
        for index in self.span:
            layer = self.layers[str(index)]
            if isinstance(layer, Checkpointed) and recompute_every:
                layer.recompute = index % recompute_every == 0
        names = self.parameter_names()
        initialize(names, self.factory, seed, config.initial_embedding_std)
        freeze(names, config.frozen)
        self.attend(FULL)

    # -- defined by each architecture -----------------------------------------------------

    @abstractmethod
    def _build(self, index: int) -> nn.Module:
        """Build layer number ``index``."""

    @abstractmethod
    def _share(self) -> None:
        """Tie weights: make the last layer use the first one's token embedding table."""

    @abstractmethod
    def inputs(self, query: Query) -> Stream:
        """Inputs of the first layer: floating-point tensors first."""

    @abstractmethod
    def wanted(self, query: Query) -> Stream:
        """Inputs of the last layer besides the stream."""

    @property
    @abstractmethod
    def embedding(self) -> HasTable:
        """The first layer, if it is in the span."""

    @property
    @abstractmethod
    def output(self) -> Any:
        """The last layer, if it is in the span."""

    @abstractmethod
    def scores(self, outputs: Outputs) -> Tensor:
        """Logits ``[M, R]`` of the ids at the predicted positions."""

    @property
    def table(self) -> Table | None:
        """Maps vectors to ids, for networks that predict vectors; otherwise None."""
        return None

    def encode(self, query: Query) -> Query:
        """Precompute what does not depend on the noise level (the source); by default nothing."""
        return query

    # -- shared by all --------------------------------------------------------------------

    def forward(self, query: Query) -> Outputs:
        """Run all layers and return the output tensors by name."""
        self.attend(query.layout)
        return self.finish(self.body(self.inputs(query)), query)

    def attend(self, layout: AttentionLayout, part: int = 0) -> None:
        """Set the attention layout (attention mask) of the next forward passes.

        Args:
            part: index of the part of the samples, if a pass is split into several: each part
                has its own key/value cache.
        """
        for layer in self._with_layout:
            layer.layout, layer.part = layout, part
            if not isinstance(layout, Cached):
                layer.forget()

    @cached_property
    def _with_layout(self) -> list[HasLayout]:
        return [layer for layer in self.modules() if isinstance(layer, HasLayout)]

    def finish(self, stream: Stream, query: Query) -> Outputs:
        """Apply the last layer to the stream of the earlier layers."""
        outputs: Outputs = self.output(stream, *self.wanted(query))
        return outputs

    def prediction(self, outputs: Outputs) -> Prediction:
        """Wrap output tensors as a :class:`Prediction`; logits may be this rank's shard."""
        given: dict[str, Any] = {
            name: Categorical(value, self.factory.rows(value.shape[-1]))
            if name in CATEGORICALS
            else value
            for name, value in outputs.items()
        }
        return Prediction(**given, table=self.table)

    def ask(self, query: Query, read: Callable[[Prediction], Answer]) -> Answer:
        """Run the network and apply ``read`` to its prediction; all layers must be local."""
        return read(self.prediction(self(query)))

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """Canonical name of each parameter; tied weights have the name of the first layer's."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        if self.config.shares_embedding and self.last in self.span:
            last: Any = self.layers[str(self.last)]
            names[last.weight] = "layers.0.tokens.weight"
        return names

    def body(self, stream: Stream) -> Stream:
        """Run the span's layers in order, except the network's last layer."""
        for name, layer in self.layers.items():
            if name != str(self.last):
                stream = layer(stream)
        return stream
