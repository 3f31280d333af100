"""What all networks here are: an ordered list of layers that answers queries.

One process runs the list from first to last; a stage of a pipeline builds a span of it
only. The names of the parameters (``layers.0.tokens.weight``, ...) are the same under
every layout.
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
    """A list of layers, or a span of it.

    Args:
        factory: builds the wide layers, whole or in part.
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

    # -- what a kind of network says of itself --------------------------------------------

    @abstractmethod
    def _build(self, index: int) -> nn.Module:
        """Layer number ``index``."""

    @abstractmethod
    def _share(self) -> None:
        """Make the last layer use the first one's table of token embeddings."""

    @abstractmethod
    def inputs(self, query: Query) -> Stream:
        """What the first layer reads: floating tensors first."""

    @abstractmethod
    def wanted(self, query: Query) -> Stream:
        """What the last layer reads beside the stream."""

    @property
    @abstractmethod
    def embedding(self) -> HasTable:
        """The first layer, where the span has it."""

    @property
    @abstractmethod
    def output(self) -> Any:
        """The last layer, where the span has it."""

    @abstractmethod
    def scores(self, outputs: Outputs) -> Tensor:
        """Logits ``[M, R]`` of the ids at the predicted positions."""

    @property
    def table(self) -> Table | None:
        """The way from vectors to ids, of a network that predicts vectors."""
        return None

    def encode(self, query: Query) -> Query:
        """The query with what is the same at every level worked out: here nothing is."""
        return query

    # -- what all of them do --------------------------------------------------------------

    def forward(self, query: Query) -> Outputs:
        """The tensors of a prediction, from the first layer to the last."""
        self.attend(query.layout)
        return self.finish(self.body(self.inputs(query)), query)

    def attend(self, layout: AttentionLayout, part: int = 0) -> None:
        """Let the passes from here on attend by a layout.

        Args:
            part: which part of the samples comes, where a pass is cut into several: each has
                cached keys and values of its own.
        """
        for layer in self._with_layout:
            layer.layout, layer.part = layout, part
            if not isinstance(layout, Cached):
                layer.forget()

    @cached_property
    def _with_layout(self) -> list[HasLayout]:
        return [layer for layer in self.modules() if isinstance(layer, HasLayout)]

    def finish(self, stream: Stream, query: Query) -> Outputs:
        """The last layer's work on the stream that the others leave."""
        outputs: Outputs = self.output(stream, *self.wanted(query))
        return outputs

    def prediction(self, outputs: Outputs) -> Prediction:
        """What the outputs mean, whose logits are whole or this rank's rows."""
        given: dict[str, Any] = {
            name: Categorical(value, self.factory.rows(value.shape[-1]))
            if name in CATEGORICALS
            else value
            for name, value in outputs.items()
        }
        return Prediction(**given, table=self.table)

    def ask(self, query: Query, read: Callable[[Prediction], Answer]) -> Answer:
        """What ``read`` makes of the prediction of a network that is all here."""
        return read(self.prediction(self(query)))

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """The canonical name of each parameter; that of a shared table is its first place's."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        if self.config.shares_embedding and self.last in self.span:
            last: Any = self.layers[str(self.last)]
            names[last.weight] = "layers.0.tokens.weight"
        return names

    def body(self, stream: Stream) -> Stream:
        """The span's layers, one after the other, but for the last of all."""
        for name, layer in self.layers.items():
            if name != str(self.last):
                stream = layer(stream)
        return stream
