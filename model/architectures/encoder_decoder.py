"""Encoder-decoder denoiser of target embeddings, conditioned on a source text.

Lin et al. 2023 (GENIE), section 3: a bidirectional encoder reads the source, and a decoder
without causal mask attends to it and to the noisy target. Like the DiT it is one ordered
list of layers, which one process runs from first to last and a pipeline may split anywhere.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from model.architectures._encoder_decoder_config import EncoderDecoderConfig
from model.architectures._encoder_decoder_layers import (
    BertBlock,
    DecoderBlock,
    EncoderBlock,
    EncoderDecoderInput,
    EncoderDecoderOutput,
    bert_encoder,
)
from model.architectures.transformer import Transformer
from model.networks.base import Network
from model.networks.layers import Stream
from model.prediction import Outputs
from model.query import Query


@dataclass(frozen=True, kw_only=True)
class EncoderDecoder(EncoderDecoderConfig):
    """An encoder-decoder that denoises target embeddings given a source text (GENIE)."""

    @property
    def network(self) -> type["EncoderDecoderNetwork"]:
        """The network class."""
        return EncoderDecoderNetwork

    @property
    def encoder_model(self) -> Transformer | None:
        """The BERT encoder as a standalone model; None if the encoder is not BERT's."""
        return bert_encoder(self) if self.encoder == "bert" else None

    def name_in_encoder(self, name: str) -> str | None:
        """The name of an encoder parameter in :attr:`encoder_model`; None for other parameters.

        Raises:
            ValueError: the encoder is not BERT's, so there is no :attr:`encoder_model`.
        """
        if self.encoder != "bert":
            return super().name_in_encoder(name)
        _, index, rest = name.split(".", 2)
        if index == "0" and rest.startswith("source_"):
            return f"layers.0.{rest.removeprefix('source_')}"
        return name if 1 <= int(index) <= self.num_encoder_layers else None


class EncoderDecoderNetwork(Network):
    """Encoder-decoder network: source and noisy target embeddings to a prediction for the target.

    The layers are the input, the encoder blocks, the decoder blocks, and the output.
    """

    config: EncoderDecoder

    @property
    def first_decoder(self) -> int:
        """Index of the first decoder layer."""
        return 1 + self.config.num_encoder_layers

    def _build(self, index: int) -> nn.Module:
        if index == 0:
            return EncoderDecoderInput(self.config, self.factory)
        if index == self.last:
            return EncoderDecoderOutput(self.config, self.factory)
        if index < self.first_decoder and self.config.encoder == "bert":
            return BertBlock(self.config, self.factory)
        if index < self.first_decoder:
            last = index == self.first_decoder - 1
            return EncoderBlock(self.config, self.factory, last=last)
        return DecoderBlock(self.config, self.factory, last=index == self.last - 1)

    @property
    def embedding(self) -> EncoderDecoderInput:
        """The first layer, if it is in the span."""
        return cast(EncoderDecoderInput, self.layers["0"])

    @property
    def output(self) -> EncoderDecoderOutput:
        """The last layer, if it is in the span."""
        return cast(EncoderDecoderOutput, self.layers[str(self.last)])

    @property
    def table(self) -> EncoderDecoderOutput:
        """The embedding table: the last layer holds it."""
        return self.output

    def _share(self) -> None:
        self.output.tokens.weight = self.output.head.weight = self.embedding.weight

    # -- inputs ---------------------------------------------------------------------------

    def inputs(self, query: Query) -> Stream:
        """Inputs of the first layer: floating-point tensors first."""
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
        """Self-conditioning input, if the model has one; zeros if there is no prediction yet."""
        if not self.config.self_conditioning:
            return ()
        assert query.noise_BLE is not None
        if query.self_cond_BLE is None:
            return (torch.zeros_like(query.noise_BLE),)
        return (query.self_cond_BLE,)

    def wanted(self, query: Query) -> Stream:
        """Inputs of the last layer besides the stream."""
        if query.x0_noise_BLE is None:
            return (query.predict_mask_BL,)
        return (query.predict_mask_BL, query.ids_BL, query.x0_noise_BLE)

    def scores(self, outputs: Outputs) -> Tensor:
        """Logits ``[M, R]`` of the rounding classifier on the predicted embeddings."""
        vector_ME = outputs["vector_ME"].to(self.output.weight.dtype)
        return cast(Tensor, self.output.head(vector_ME))

    # -- forward --------------------------------------------------------------------------

    def encode(self, query: Query) -> Query:
        """Encode the source once; it does not depend on the noise level."""
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
        """Run the network, reusing the encoded source if the query has it."""
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
