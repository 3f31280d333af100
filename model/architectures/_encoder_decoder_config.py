"""The fields of an encoder-decoder's configuration, which its layers read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from model.needs import Need
from model.networks.config import ModelConfig, wrong_sizes
from model.networks.flops import LOOK_UP, block_flops, block_parameters


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(ModelConfig):
    """A bidirectional encoder of the source, and a decoder that denoises embeddings of the
    target (Lin et al. 2023, GENIE, section 3).

    The defaults are a modern shape; the release's is ``projection: tanh``, ``time: additive``,
    ``positions: learned``, with ``mlp: geglu`` beside it.

    Args:
        num_encoder_layers: blocks over the source; ``num_layers`` counts the decoder's.
        encoder: its blocks are plain pre-norm ones, or BERT's (Devlin et al. 2019): post-norm,
            with biases and learned positions, so that it can begin with BERT's weights.
        embedding_width: E, of the embeddings that are noised and denoised.
        projection: between E and D: one linear layer, or Linear-Tanh-Linear.
        output: the projected stream itself (vector, GENIE's), or the mean of all embeddings
            under the categorical that it scores them to (mixture; score interpolation,
            Dieleman et al. 2022, CDCD, section 3.2): which of V tokens a noisy vector may be
            need not be learnt by heart. For x0-prediction.
        time: the level modulates every decoder block (adaln), or is added to its input.
        conditioning_width: C, of the vector that adaLN turns into shifts and scales.
        positions: rotary in self-attention, or a learned vector for each position.
        max_positions: how many learned vectors there are for each side.
        ignore_source_padding: let the decoder see the source's padding, as the release does.
        self_conditioning: give the decoder an earlier prediction of the target as a further
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
        """The needs of an objective that it meets."""
        found = {Need.EMBEDDINGS}
        if self.output == "vector":
            found.add(Need.ANY_VECTOR)
        if self.self_conditioning:
            found.add(Need.DRAFT)
        return frozenset(found)

    @property
    def reads_source(self) -> bool:
        """Always."""
        return True

    @property
    def shares_embedding(self) -> bool:
        """Always: the last layer scores embeddings by the table that they come from."""
        return True

    @property
    def table_width(self) -> int:
        """E, of the embeddings that are denoised."""
        return self.embedding_width

    @property
    def max_length(self) -> int | None:
        """The most positions of a source; None where positions are not learned."""
        learned = self.positions == "learned" or self.encoder == "bert"
        return self.max_positions if learned else None

    @property
    def max_target_length(self) -> int | None:
        """The most positions of a target; None where positions are not learned."""
        return self.max_positions if self.positions == "learned" else None

    @property
    def summary(self) -> str:
        """Its layers and widths in words."""
        return (
            f"{self.num_encoder_layers} encoder and {self.num_layers} decoder layers "
            f"of width {self.width}, embeddings of {self.embedding_width}"
        )

    @property
    def total_layers(self) -> int:
        """Layers that a pipeline can cut apart: the first, all blocks, and the last."""
        return super().total_layers + self.num_encoder_layers

    @property
    def has_uniform_blocks(self) -> bool:
        """Never: the decoder's have attention to the memory besides."""
        return False

    @property
    def num_attentions(self) -> int:
        """The encoder's, and two in each block of the decoder."""
        return self.num_encoder_layers + 2 * self.num_layers

    def split_activations(self, tensor: int) -> int:
        """Elements that T ranks divide; attention to the memory is a third branch of a block."""
        return super().split_activations(tensor) + 4 * self.width

    def per_token_parameters(self, head_share: float = 1.0) -> float:
        """N, per position of a source and a target of one length."""
        blocks = self.num_encoder_layers + self.num_layers
        cross = 4 * self.width * self.width
        rounding = self.num_rows * self.table_width
        return blocks * block_parameters(self) + self.num_layers * cross + rounding

    def layer_flops(self, length: int, head_share: float) -> list[float]:
        """Forward and backward operations per position of each layer.

        The encoder's blocks come first, each over a source as long as the target; the
        decoder's have attention to the memory besides. All positions are rounded to ids.
        """
        block = block_flops(self, length)
        cross = 24.0 * self.width**2 + 12.0 * self.width * length
        rounding = 6.0 * self.num_rows * self.table_width
        encoder = [block] * self.num_encoder_layers
        return [LOOK_UP * block, *encoder, *[block + cross] * self.num_layers, rounding]
