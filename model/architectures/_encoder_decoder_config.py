"""Configuration of the encoder-decoder, as its layers read it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from model.needs import Need
from model.networks.config import ModelConfig, wrong_sizes
from model.networks.flops import LOOK_UP, block_flops, block_parameters


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(ModelConfig):
    """A bidirectional source encoder, and a decoder that denoises target embeddings
    (Lin et al. 2023, GENIE, section 3).

    The defaults are a modern architecture; GENIE's released model has ``projection: tanh``,
    ``time: additive``, ``positions: learned`` and ``mlp: geglu``.

    Args:
        num_encoder_layers: encoder blocks; ``num_layers`` counts the decoder's.
        encoder: pre-norm blocks, or BERT's (Devlin et al. 2019): post-norm, with biases and
            learned positions, so that it can be initialized from BERT's weights.
        embedding_width: E, the width of the embeddings that are noised and denoised.
        projection: between E and D: one linear layer, or Linear-Tanh-Linear.
        output: the projected hidden state (vector, as in GENIE), or the mean of all embeddings
            under the softmax of its scores against them (mixture; score interpolation,
            Dieleman et al. 2022, CDCD, section 3.2): the network then need not memorize the
            embeddings of all V tokens. For x0-prediction.
        time: the noise level modulates every decoder block (adaln), or is added to the decoder's
            input (additive).
        conditioning_width: C, the width of the vector that adaLN turns into shifts and scales.
        positions: rotary in self-attention, or learned position embeddings.
        max_positions: number of learned position embeddings, for the source and for the target.
        ignore_source_padding: let the decoder attend to source padding, as GENIE's release does.
        self_conditioning: give the decoder an earlier prediction of the target as an additional
            input (Chen et al. 2023).
    """

    num_encoder_layers: int = 6
    encoder: Literal["pre_norm", "bert"] = "pre_norm"
    embedding_width: int = 128
    projection: Literal["linear", "tanh"] = "linear"
    output: Literal["vector", "mixture"] = "vector"
    time: Literal["adaln", "additive"] = "adaln"
    conditioning_width: int = 128
    positions: Literal["rotary", "learned"] = "rotary"
    max_positions: int = 512
    ignore_source_padding: bool = False
    self_conditioning: bool = False

    def _check_sizes(self) -> Iterator[str]:
        yield from super()._check_sizes()
        for name in ("num_encoder_layers", "embedding_width", "conditioning_width"):
            yield from wrong_sizes(self, name)
        yield from wrong_sizes(self, "max_positions")

    @property
    def offers(self) -> frozenset[Need]:
        """The needs of an objective that this network meets."""
        found = {Need.EMBEDDINGS}
        if self.output == "vector":
            found.add(Need.ANY_VECTOR)
        if self.self_conditioning:
            found.add(Need.DRAFT)
        return frozenset(found)

    @property
    def reads_source(self) -> bool:
        """Always true."""
        return True

    @property
    def shares_embedding(self) -> bool:
        """Always true: the last layer scores embeddings with the token embedding table."""
        return True

    @property
    def table_width(self) -> int:
        """E, the width of the embeddings that are denoised."""
        return self.embedding_width

    @property
    def max_length(self) -> int | None:
        """Maximum source length; None if positions are not learned."""
        learned = self.positions == "learned" or self.encoder == "bert"
        return self.max_positions if learned else None

    @property
    def max_target_length(self) -> int | None:
        """Maximum target length; None if positions are not learned."""
        return self.max_positions if self.positions == "learned" else None

    @property
    def summary(self) -> str:
        """Number of layers and widths, as text."""
        return (
            f"{self.num_encoder_layers} encoder and {self.num_layers} decoder layers "
            f"of width {self.width}, embeddings of {self.embedding_width}"
        )

    @property
    def total_layers(self) -> int:
        """Layers that a pipeline can split: the first, all blocks, and the last."""
        return super().total_layers + self.num_encoder_layers

    @property
    def has_uniform_blocks(self) -> bool:
        """Always false: decoder blocks have cross-attention as well."""
        return False

    @property
    def num_attentions(self) -> int:
        """Attention layers: one per encoder block, two per decoder block."""
        return self.num_encoder_layers + 2 * self.num_layers

    def split_activations(self, tensor: int) -> int:
        """Activation elements split over T ranks; cross-attention is a block's third branch."""
        return super().split_activations(tensor) + 4 * self.width

    def per_token_parameters(self, head_share: float = 1.0) -> float:
        """N, weights used per position, for source and target of equal length."""
        blocks = self.num_encoder_layers + self.num_layers
        cross = 4 * self.width * self.width
        rounding = self.num_rows * self.table_width
        return blocks * block_parameters(self) + self.num_layers * cross + rounding

    def layer_flops(self, length: int, head_share: float) -> list[float]:
        """Forward and backward FLOPs per position of each layer.

        Encoder blocks come first, over a source as long as the target; decoder blocks add
        cross-attention. The rounding classifier runs at all positions.
        """
        block = block_flops(self, length)
        cross = 24.0 * self.width**2 + 12.0 * self.width * length
        rounding = 6.0 * self.num_rows * self.table_width
        encoder = [block] * self.num_encoder_layers
        return [LOOK_UP * block, *encoder, *[block + cross] * self.num_layers, rounding]
