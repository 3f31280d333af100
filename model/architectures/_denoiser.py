"""Networks that are one stack of blocks, from noisy ids to a categorical at each position."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from model.needs import Need
from model.networks.attention_layouts import FULL, AttentionLayout, Causal
from model.networks.base import Network
from model.networks.config import MOST, ModelConfig, wrong_sizes
from model.networks.flops import LOOK_UP, block_flops, block_parameters
from model.networks.layers import HasTable, Norm, Stream
from model.networks.linears import LayerFactory
from model.prediction import Outputs
from model.query import Query


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig(ModelConfig):
    """The part of a configuration that stacks over ids have in common.

    Args:
        num_kv_heads: heads of keys and values, each shared by H / num_kv_heads queries
            (grouped-query attention, Ainslie et al. 2023); by default H.
        head_size: E, width of a head; by default D / H.
        qkv_bias, attention_bias: biases of queries, keys and values; of attention's output.
        qk_norm: RMSNorm over each head of the queries and keys, before the rotation.
        hide_padding: hide invalid positions from attention (MDLM's release shows them).
        tied_head: use the embedding as the head's weight.
        head_bias: of the head; by default where it is not tied.
        attention: causal only to compare with weights that were trained so.
        causal_annealing_steps: of training, over which attention opens from causal to full
            (Gong et al. 2025, section 3.2); 0 for none.
        shifted_output: the prediction for a position is read off the one before it, as
            next-token models were trained (Gong et al. 2025, section 3.2).
    """

    num_kv_heads: int | None = None
    head_size: int | None = None
    qkv_bias: bool = False
    attention_bias: bool = False
    qk_norm: bool = False
    hide_padding: bool = False
    tied_head: bool = False
    head_bias: bool | None = None
    attention: Literal["full", "causal"] = "full"
    causal_annealing_steps: int = 0
    shifted_output: bool = False

    def _check_sizes(self) -> Iterator[str]:
        yield from super()._check_sizes()
        yield from wrong_sizes(self, "num_kv_heads", "head_size")

    def _check_numbers(self) -> Iterator[str]:
        yield from super()._check_numbers()
        if not 0 <= self.causal_annealing_steps <= MOST["causal_annealing_steps"]:
            yield f"causal_annealing_steps must be at least 0, not {self.causal_annealing_steps}"

    def _check_heads(self) -> Iterator[str]:
        if self.head_size is None:
            yield from super()._check_heads()
        elif self.head_size % 2:
            yield f"num_heads: rotary positions need an even head width, not {self.head_size}"
        if self.num_heads % self.kv_heads:
            yield f"num_heads {self.num_heads} is not divisible by {self.kv_heads} num_kv_heads"

    @property
    def head_width(self) -> int:
        """E, by default D / H."""
        return self.head_size or super().head_width

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def has_head_bias(self) -> bool:
        """Whether the head has a bias."""
        return not self.tied_head if self.head_bias is None else self.head_bias

    @property
    def shares_embedding(self) -> bool:
        """Whether the head is tied."""
        return self.tied_head

    @property
    def initial_embedding_std(self) -> float:
        """Standard deviation of the initial embedding."""
        if self.embedding_std is None and self.tied_head:
            return float(self.width**-0.5)
        return super().initial_embedding_std

    @property
    def offers(self) -> frozenset[Need]:
        """The needs of an objective that it meets."""
        found = {Need.IDS}
        if self.attention == "full" and not self.causal_annealing_steps:
            found.add(Need.OWN_LAYOUT)
        if not self.shifted_output:
            found.add(Need.OWN_POSITION)
        if not self.time_conditioning:
            found.add(Need.NO_LEVEL)
        return frozenset(found)

    @property
    def summary(self) -> str:
        """Its layers and width in words."""
        return f"{self.num_layers} layers of width {self.width}"

    def per_token_parameters(self, head_share: float = 1.0) -> float:
        """N: weights that run per token, the head at a share of the positions."""
        head = self.num_rows * self.width
        return self.num_layers * block_parameters(self) + head_share * head

    def layer_flops(self, length: int, head_share: float) -> list[float]:
        """Forward and backward operations per position of embedding, blocks and head."""
        block = block_flops(self, length)
        head = 6.0 * head_share * self.num_rows * self.width
        return [LOOK_UP * block, *[block] * self.num_layers, head]


class HasHead(nn.Module):
    """A last layer that turns the stream into logits: its norm and its head."""

    def __init__(self, config: DenoiserConfig, factory: LayerFactory) -> None:
        super().__init__()
        self.norm = Norm(config)
        self.head: nn.Module = factory.head(
            config.width, config.num_rows, config.excluded_rows, bias=config.has_head_bias
        )
        self.whole = factory.whole
        self.shift = int(config.shifted_output)

    @property
    def weight(self) -> nn.Parameter:
        """The head's matrix, or this rank's rows of it."""
        weight = self.head.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def remove_head(self) -> None:
        """Give hidden states ``[M, D]`` from here on: what the head would read."""
        self.head = nn.Identity()

    def read_at(self, predict_mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns ``[M]`` from which the predictions at ``predict_mask_BL`` are read."""
        row_M, column_M = predict_mask_BL.nonzero(as_tuple=True)
        return row_M, (column_M - self.shift).clamp(min=0)


class Denoiser(Network):
    """Noisy ids and their level to a categorical over the vocabulary at chosen positions.

    The layers are the embedding, the blocks and the head.
    """

    config: DenoiserConfig

    @property
    def embedding(self) -> HasTable:
        """The first layer, where the span has it."""
        return cast(HasTable, self.layers["0"])

    @property
    def output(self) -> HasHead:
        """The last layer, where the span has it."""
        return cast(HasHead, self.layers[str(self.last)])

    def _share(self) -> None:
        self.output.head.weight = self.embedding.weight

    def attend(self, layout: AttentionLayout, part: int = 0) -> None:
        """See :meth:`Network.attend`; a causal model's full attention is causal."""
        is_causal = layout == FULL and self.config.attention == "causal"
        super().attend(Causal() if is_causal else layout, part)

    def inputs(self, query: Query) -> Stream:
        """The tensors that the first layer reads, floating ones first."""
        valid_BL = query.valid_BL if self.config.hide_padding else None
        if query.segment_BL is not None:
            keys_BL = query.segment_BL.to(torch.int32)
            if valid_BL is not None:
                keys_BL = keys_BL * valid_BL
            return (query.level_BK, query.ids_BL, keys_BL)
        if valid_BL is not None:
            return (query.level_BK, query.ids_BL, valid_BL.to(torch.uint8))
        return (query.level_BK, query.ids_BL)

    def scores(self, outputs: Outputs) -> Tensor:
        """The logits."""
        return outputs["logits"]

    def wanted(self, query: Query) -> Stream:
        """The tensors that the last layer reads beside the stream."""
        return (query.predict_mask_BL,)
