"""The DiT denoiser, from noisy ids to a categorical at each position."""

import torch
from torch import nn

from model.networks.base import Network
from model.networks.layers import Block, Embedding, OutputLayer, Stream
from model.networks.transformer import PlainBlock, PlainEmbedding, PlainOutput
from model.query import Query


class Denoiser(Network):
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
        valid_BL = query.valid_BL if self.config.hide_padding else None
        if query.segment_BL is not None:
            keys_BL = query.segment_BL.to(torch.int32)
            if valid_BL is not None:
                keys_BL = keys_BL * valid_BL
            return (query.level_BK, query.ids_BL, keys_BL)
        if valid_BL is not None:
            return (query.level_BK, query.ids_BL, valid_BL.to(torch.uint8))
        return (query.level_BK, query.ids_BL)

    def wanted(self, query: Query) -> Stream:
        """What the last layer reads beside the stream."""
        return (query.predict_mask_BL,)
