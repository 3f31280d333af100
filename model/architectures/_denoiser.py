"""Base of the single-stack denoisers: noisy token ids in, logits at each position out."""

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
    """Configuration shared by the single-stack denoisers over token ids.

    Args:
        num_kv_heads: key/value heads, each shared by H / num_kv_heads query heads
            (grouped-query attention, Ainslie et al. 2023); by default H.
        head_size: E, the width of a head; by default D / H.
        qkv_bias, attention_bias: biases in the q, k and v projections; in attention's output
            projection.
        qk_norm: RMSNorm on each query and key head, before the rotary embedding.
        hide_padding: mask padding out of attention (MDLM's release attends to it).
        tied_head: use the embedding as the head's weight.
        head_bias: whether the head has a bias; by default only if it is not tied.
        attention: attention mask; causal only to compare with weights that were trained that way.
        causal_annealing_steps: training steps over which the attention mask goes from causal to
            full (Gong et al. 2025, section 3.2); 0 for none.
        shifted_output: read the prediction for a position off the previous one, as in
            next-token models (Gong et al. 2025, section 3.2).
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
        """E, the width of a head; by default D / H."""
        return self.head_size or super().head_width

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def has_head_bias(self) -> bool:
        """Whether the head has a bias."""
        return not self.tied_head if self.head_bias is None else self.head_bias

    @property
    def shares_embedding(self) -> bool:
        """Whether the head is tied to the token embedding."""
        return self.tied_head

    @property
    def initial_embedding_std(self) -> float:
        """Standard deviation of the token embedding at initialization."""
        if self.embedding_std is None and self.tied_head:
            return float(self.width**-0.5)
        return super().initial_embedding_std

    @property
    def offers(self) -> frozenset[Need]:
        """The needs of an objective that this network meets."""
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
        """Number of layers and width, as text."""
        return f"{self.num_layers} layers of width {self.width}"

    def per_token_parameters(self, head_share: float = 1.0) -> float:
        """N: weights used per token; the head counts for the share of positions it runs at."""
        head = self.num_rows * self.width
        return self.num_layers * block_parameters(self) + head_share * head

    def layer_flops(self, length: int, head_share: float) -> list[float]:
        """Forward and backward FLOPs per position: ``[embedding, *blocks, head]``."""
        block = block_flops(self, length)
        head = 6.0 * head_share * self.num_rows * self.width
        return [LOOK_UP * block, *[block] * self.num_layers, head]


class HasHead(nn.Module):
    """Base of the last layer, from hidden states to logits: final norm and head."""

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
        """The head's weight, or this rank's rows."""
        weight = self.head.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def remove_head(self) -> None:
        """Replace the head by the identity: the layer then returns hidden states ``[M, D]``."""
        self.head = nn.Identity()

    def read_at(self, predict_mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns ``[M]`` of the hidden states that predict ``predict_mask_BL``.

        They are one column to the left with ``shifted_output``.
        """
        row_M, column_M = predict_mask_BL.nonzero(as_tuple=True)
        return row_M, (column_M - self.shift).clamp(min=0)


class Denoiser(Network):
    """Denoiser: noisy ids and their noise level to logits at the predicted positions.

    The layers are the embedding, the blocks and the head.
    """

    config: DenoiserConfig

    @property
    def embedding(self) -> HasTable:
        """The first layer, if it is in the span."""
        return cast(HasTable, self.layers["0"])

    @property
    def output(self) -> HasHead:
        """The last layer, if it is in the span."""
        return cast(HasHead, self.layers[str(self.last)])

    def _share(self) -> None:
        self.output.head.weight = self.embedding.weight

    def attend(self, layout: AttentionLayout, part: int = 0) -> None:
        """See :meth:`Network.attend`; for a causal model the full layout becomes causal."""
        is_causal = layout == FULL and self.config.attention == "causal"
        super().attend(Causal() if is_causal else layout, part)

    def inputs(self, query: Query) -> Stream:
        """Inputs of the first layer: ``(level_BK, ids_BL[, keys_BL])``."""
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
        """Logits ``[M, R]`` at the predicted positions."""
        return outputs["logits"]

    def wanted(self, query: Query) -> Stream:
        """Inputs of the last layer besides the stream: ``(predict_mask_BL,)``."""
        return (query.predict_mask_BL,)
