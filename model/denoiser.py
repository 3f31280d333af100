"""The DiT denoiser, from noisy ids to a categorical at each position."""

import torch
from torch import Tensor, nn

from model.layers import Block, Embedding, OutputLayer, Stream
from model.plain import PlainBlock, PlainEmbedding, PlainOutput
from model.query import Query
from model.stack import Stack


class Denoiser(Stack):
    """Noisy ids and their level to a categorical over the vocabulary at chosen positions.

    The layers are the embedding, the blocks and the head.
    """

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

    def _share(self) -> None:
        self.output.head.weight = self.embedding.weight

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

    def forward(
        self,
        ids_BL: Tensor,
        level_BK: Tensor,
        where_BL: Tensor | None = None,
        valid_BL: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[M, R]`` at the M true positions of ``where_BL`` (default: everywhere).

        Args:
            ids_BL: int64 ids, [MASK] at noisy positions; or their embeddings ``[B, L, D]``.
            level_BK: noise level in [0, 1], K = 1 or L.
            where_BL: bool, positions at which the head runs.
            valid_BL: bool, no padding; used only if the model hides padding.
        """
        if where_BL is None:
            where_BL = torch.ones(ids_BL.shape[:2], dtype=torch.bool, device=ids_BL.device)
        query = Query(ids_BL=ids_BL, level_BK=level_BK, where_BL=where_BL, valid_BL=valid_BL)
        logits_MR: Tensor = self.output(self.body(self.inputs(query)), where_BL)
        return logits_MR
