"""The DiT denoiser: an ordered list of layers.

One process runs the list from first to last; a stage of a pipeline builds a span of it
only. The names of the parameters (``layers.0.tokens.weight``, ...) are the same under
every layout.
"""

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.initialize import initialize
from model.layers import Block, Embedding, OutputLayer, Stream
from model.linears import DenseFactory, LayerFactory
from model.plain import PlainBlock, PlainEmbedding, PlainOutput
from model.query import Query


class Denoiser(nn.Module):
    """Noisy ids and their level to a categorical over the vocabulary at chosen positions.

    Args:
        factory: builds the wide layers, whole or in part.
        span: which layers to build (default: all), of ``num_layers`` + 2: the embedding, the
            blocks, the head.
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
        self.last = config.num_layers + 1
        self.factory = factory or DenseFactory()
        self.span = range(self.last + 1) if span is None else span
        self.layers = nn.ModuleDict({str(index): self._build(index) for index in self.span})
        if config.tied_head and {0, self.last} <= set(self.span):
            self.output.head.weight = self.embedding.weight
        for index in self.span:
            layer = self.layers[str(index)]
            if isinstance(layer, Block | PlainBlock) and recompute_every:
                layer.recompute = index % recompute_every == 0
        initialize(self.parameter_names(), self.factory, seed, config.initial_embedding_std)

    def _build(self, index: int) -> nn.Module:
        plain = self.config.block != "adaln"
        if index == 0:
            return (PlainEmbedding if plain else Embedding)(self.config, self.factory)
        if index == self.last:
            return (PlainOutput if plain else OutputLayer)(self.config, self.factory)
        return (PlainBlock if plain else Block)(self.config, self.factory)

    @property
    def embedding(self) -> Embedding | PlainEmbedding:
        """The first layer, where the span has it."""
        layer = self.layers["0"]
        assert isinstance(layer, Embedding | PlainEmbedding)
        return layer

    @property
    def output(self) -> OutputLayer | PlainOutput:
        """The last layer, where the span has it."""
        layer = self.layers[str(self.last)]
        assert isinstance(layer, OutputLayer | PlainOutput)
        return layer

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """The canonical name of each parameter; that of a tied weight is its first place's."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        if self.config.tied_head and self.last in self.span:
            names[self.output.weight] = "layers.0.tokens.weight"
        return names

    def inputs(self, query: Query) -> Stream:
        """What the first layer reads: floating tensors first."""
        if self.config.hide_padding and query.valid_BL is not None:
            return (query.level_BK, query.ids_BL, query.valid_BL.to(torch.uint8))
        return (query.level_BK, query.ids_BL)

    def wanted(self, query: Query) -> Stream:
        """What the last layer reads beside the stream."""
        return (query.where_BL,)

    def arguments(self, query: Query) -> tuple[Tensor | None, ...]:
        """The arguments of :meth:`forward`."""
        return (query.ids_BL, query.level_BK, query.where_BL, query.valid_BL)

    def remember(self, query: Query) -> Query:
        """The query with what is the same at every level worked out: here nothing is."""
        return query

    def answer(self, query: Query) -> Tensor:
        """The logits of :meth:`forward`."""
        logits_MR: Tensor = self(*self.arguments(query))
        return logits_MR

    def body(self, stream: Stream) -> Stream:
        """The span's layers, one after the other, but for the last of all."""
        for name, layer in self.layers.items():
            if name != str(self.last):
                stream = layer(stream)
        return stream

    def forward(
        self,
        ids_BL: Tensor,
        level_BK: Tensor,
        where_BL: Tensor | None = None,
        valid_BL: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[M, R]`` at the M true positions of ``where_BL`` (default: everywhere).

        Args:
            ids_BL: int64 ids, [MASK] at noisy positions.
            level_BK: noise level in [0, 1], K = 1 or L.
            where_BL: bool, positions at which the head runs.
            valid_BL: bool, no padding; used only if the model hides padding.
        """
        if where_BL is None:
            where_BL = torch.ones_like(ids_BL, dtype=torch.bool)
        query = Query(ids_BL=ids_BL, level_BK=level_BK, where_BL=where_BL, valid_BL=valid_BL)
        logits_MR: Tensor = self.output(self.body(self.inputs(query)), where_BL)
        return logits_MR
