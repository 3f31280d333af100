"""The encoder-decoder denoiser: a source text conditions the denoising of a target's embeddings.

Lin et al. 2023 (GENIE), section 3: a bidirectional encoder reads the source, and a decoder
without causal mask attends to it and to the noisy target. Like the DiT it is one ordered
list of layers, which one process runs from first to last and a pipeline cuts anywhere.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from model.networks.base import Network
from model.networks.config import ModelConfig
from model.networks.encoder_decoder_layers import (
    BertBlock,
    DecoderBlock,
    EncoderBlock,
    EncoderDecoderInput,
    EncoderDecoderOutput,
    shape_of,
)
from model.networks.layers import Stream
from model.prediction import Outputs
from model.query import Query


def name_in_encoder(name: str, config: ModelConfig) -> str | None:
    """What an encoder's parameter is called in a denoiser of its own; None for all others.

    Raises:
        ValueError: the encoder is not BERT's, and so no denoiser's either.
    """
    shape = shape_of(config)
    if shape.encoder != "bert":
        raise ValueError("only an encoder of BERT's kind (model.seq2seq.encoder: bert) is a model")
    _, index, rest = name.split(".", 2)
    if index == "0" and rest.startswith("source_"):
        return f"layers.0.{rest.removeprefix('source_')}"
    if 1 <= int(index) <= shape.num_encoder_layers:
        return name
    return None


class Seq2Seq(Network):
    """Noisy embeddings, their level and a source to a prediction of clean embeddings.

    The layers are the entry, the encoder's blocks, the decoder's blocks, and the way out.
    """

    @property
    def first_decoder(self) -> int:
        """The number of the first layer of the decoder."""
        return 1 + shape_of(self.config).num_encoder_layers

    def _build(self, index: int) -> nn.Module:
        if index == 0:
            return EncoderDecoderInput(self.config, self.factory)
        if index == self.last:
            return EncoderDecoderOutput(self.config, self.factory)
        if index < self.first_decoder and shape_of(self.config).encoder == "bert":
            return BertBlock(self.config, self.factory)
        if index < self.first_decoder:
            last = index == self.first_decoder - 1
            return EncoderBlock(self.config, self.factory, last=last)
        return DecoderBlock(self.config, self.factory, last=index == self.last - 1)

    @property
    def embedding(self) -> EncoderDecoderInput:
        """The first layer, where the span has it."""
        return cast(EncoderDecoderInput, self.layers["0"])

    @property
    def output(self) -> EncoderDecoderOutput:
        """The last layer, where the span has it."""
        return cast(EncoderDecoderOutput, self.layers[str(self.last)])

    @property
    def table(self) -> EncoderDecoderOutput:
        """The last layer has it."""
        return self.output

    def _share(self) -> None:
        self.output.tokens.weight = self.output.head.weight = self.embedding.weight

    # -- what is read ---------------------------------------------------------------------

    def inputs(self, query: Query) -> Stream:
        """What the first layer reads: floating tensors first."""
        assert query.noise_BLE is not None
        assert query.signal_BK is not None
        assert query.source_BS is not None
        assert query.source_valid_BS is not None
        return (
            query.noise_BLE,
            query.signal_BK,
            query.level_BK,
            *self._draft(query),
            query.ids_BL,
            query.source_BS,
            query.source_valid_BS.to(torch.uint8),
        )

    def _draft(self, query: Query) -> Stream:
        """The draft, where this model reads one; none yet is a draft of zeros."""
        if not shape_of(self.config).self_conditioning:
            return ()
        assert query.noise_BLE is not None
        if query.self_cond_BLE is None:
            return (torch.zeros_like(query.noise_BLE),)
        return (query.self_cond_BLE,)

    def wanted(self, query: Query) -> Stream:
        """What the last layer reads beside the stream."""
        if query.x0_noise_BLE is None:
            return (query.predict_mask_BL,)
        return (query.predict_mask_BL, query.ids_BL, query.x0_noise_BLE)

    # -- what is done ---------------------------------------------------------------------

    def encode(self, query: Query) -> Query:
        """The query with its source encoded, which is the same at every level."""
        assert query.source_BS is not None
        assert query.source_valid_BS is not None
        stream: Stream = (
            self.embedding.source(query.source_BS),
            query.source_valid_BS.to(torch.uint8),
        )
        for index in range(1, self.first_decoder):
            stream = self.layers[str(index)](stream)
        return replace(query, memory_BSD=stream[0])

    def forward(self, query: Query) -> Outputs:
        """The output layer's tensors, from the encoded source where the query has it."""
        if query.memory_BSD is None:
            return super().forward(query)
        self.attend(query.layout)
        noise_BLE, signal_BK, level_BK, *self_cond, ids_BL, _, valid_BS = self.inputs(query)
        stream = (
            query.memory_BSD,
            *self.embedding.target(
                noise_BLE, signal_BK, level_BK, self_cond[0] if self_cond else None, ids_BL
            ),
            valid_BS,
        )
        for index in range(self.first_decoder, self.last):
            stream = self.layers[str(index)](stream)
        return self.finish(stream, query)
