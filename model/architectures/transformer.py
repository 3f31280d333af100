"""Plain transformer over token ids, compatible with pretrained Llama- and BERT-style weights.

Pre-norm blocks are Llama's (Touvron et al. 2023): ``x + f(norm(x))``. Post-norm blocks are
BERT's (Devlin et al. 2019): ``norm(x + f(x))``, with a norm after the embedding as well, and
a transform, in place of the last norm, before the head. There is no time conditioning: a masked
diffusion model needs none (Ou et al. 2024, section 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architectures._denoiser import Denoiser, DenoiserConfig, HasHead
from model.networks.config import wrong_sizes
from model.networks.layers import (
    Attention,
    Checkpointed,
    HasLayout,
    HasTable,
    Mlp,
    Norm,
    Stream,
    embedded,
)
from model.networks.linears import LayerFactory
from model.prediction import Outputs


@dataclass(frozen=True, kw_only=True)
class Transformer(DenoiserConfig):
    """A bidirectional transformer over token ids, without time conditioning.

    Args:
        norm_first: pre-norm blocks, as in Llama; if false post-norm, with BERT's norm after the
            embedding and its transform before the head.
        norm_bias: whether every norm over the width has a bias.
        num_positions: number of learned position embeddings, which replace rotary ones.
    """

    norm_first: bool = True
    norm_bias: bool = False
    num_positions: int | None = None

    def _check_sizes(self) -> Iterator[str]:
        yield from super()._check_sizes()
        yield from wrong_sizes(self, "num_positions")

    def _check_norm(self) -> Iterator[str]:
        if self.norm_bias and self.norm == "rmsnorm":
            yield "norm_bias goes with norm layernorm; an rmsnorm has none"

    @property
    def network(self) -> type["TransformerNetwork"]:
        """The network class."""
        return TransformerNetwork

    @property
    def max_length(self) -> int | None:
        """Number of learned position embeddings; None if positions are rotary."""
        return self.num_positions


class PlainEmbedding(HasTable, HasLayout):
    """The first layer: token embedding, and position embedding if learned."""

    def __init__(self, config: Transformer, factory: LayerFactory) -> None:
        super().__init__()
        self.tokens = factory.embedding(config.num_rows, config.width)
        learned = config.num_positions
        self.positions = nn.Embedding(learned, config.width) if learned else None
        self.norm = None if config.norm_first else Norm(config)
        self.dropout = nn.Dropout(config.dropout)
        self.cut = factory.cut

    def forward(self, inputs: tuple[Tensor, ...]) -> Stream:
        """``(level_BK, ids_BL[, keys_BL])`` to ``(h_BLD[, keys_BL])``; the level is not used.

        Raises:
            ValueError: more positions than there are learned position embeddings.
        """
        _, ids_BL, *keys = inputs
        x = embedded(self.tokens, ids_BL)
        if self.positions is not None:
            length, most = ids_BL.shape[1], self.positions.num_embeddings
            places = self.layout.places(length) or range(length)
            if places.stop > most:
                raise ValueError(f"{places.stop} positions, but the model has learned only {most}")
            place_L = torch.arange(places.start, places.stop, device=ids_BL.device)
            place_L = place_L.repeat(length // len(places))
            x = x + self.positions(place_L.expand(ids_BL.shape[:2]))
        if self.norm is not None:
            x = self.dropout(self.norm(x))
        return (self.cut(x), *keys)


class PlainBlock(Checkpointed):
    """Transformer block, pre-norm or post-norm: attention, then the MLP."""

    def __init__(self, config: Transformer, factory: LayerFactory) -> None:
        super().__init__()
        self.attention_norm = Norm(config)
        self.attention = Attention(config, factory, rotary=config.num_positions is None)
        self.mlp_norm = Norm(config)
        self.mlp = Mlp(config, factory)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm_first
        self.spread = factory.spread

    def _forward(self, stream: Stream) -> Stream:
        x, *rest = stream
        keys = rest[0] if rest else None
        if not self.norm_first:
            x = x + self.dropout(self.attention(x, keys))
            x = self.attention_norm(x, self.spread)
            x = self.mlp_norm(x + self.dropout(self.mlp(x)), self.spread)
            return (x, *rest)
        x = x + self.dropout(self.attention(self.attention_norm(x, self.spread), keys))
        x = x + self.dropout(self.mlp(self.mlp_norm(x, self.spread)))
        return (x, *rest)


class PlainOutput(HasHead):
    """The last layer: final norm (or BERT's transform) and head, at the predicted positions."""

    def __init__(self, config: Transformer, factory: LayerFactory) -> None:
        super().__init__(config, factory)
        self.transform = None if config.norm_first else nn.Linear(config.width, config.width)
        self.approximate = "tanh" if config.gelu == "tanh" else "none"

    def forward(self, stream: Stream, predict_mask_BL: Tensor) -> Outputs:
        """Logits ``[M, R]`` at the M true positions of ``predict_mask_BL`` (bool), in row order."""
        x_MD = self.whole(stream[0])[self.read_at(predict_mask_BL)]
        if self.transform is not None:
            x_MD = F.gelu(self.transform(x_MD), approximate=self.approximate)
        return {"logits": self.head(self.norm(x_MD))}


class TransformerNetwork(Denoiser):
    """The transformer network: embedding, blocks and head."""

    config: Transformer

    def _build(self, index: int) -> nn.Module:
        if index == 0:
            return PlainEmbedding(self.config, self.factory)
        if index == self.last:
            return PlainOutput(self.config, self.factory)
        return PlainBlock(self.config, self.factory)
