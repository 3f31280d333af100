"""DiT over token ids: adaLN-zero blocks with rotary position embeddings.

Sahoo et al. 2024 (MDLM), appendix; Peebles & Xie 2023; Su et al. 2021 (rotary positions).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architectures._denoiser import Denoiser, DenoiserConfig, HasHead
from model.networks.adaln import FREQUENCIES, modulate, sinusoid
from model.networks.config import wrong_sizes
from model.networks.layers import (
    Attention,
    Checkpointed,
    HasTable,
    Mlp,
    Norm,
    Stream,
    embedded,
)
from model.networks.linears import LayerFactory
from model.prediction import Outputs


@dataclass(frozen=True, kw_only=True)
class DiT(DenoiserConfig):
    """A bidirectional DiT over token ids, whose blocks are modulated by the noise level.

    Args:
        conditioning_width: C, the width of the vector that adaLN turns into shifts and scales.
        time_conditioning: give the network the noise level; if off, it always sees level 0.
        time_input: how the level is fed in: 1000 times the level, or MDLM's total noise,
            -log(1 - 0.999 level), as its public weights expect.
    """

    conditioning_width: int = 128
    time_conditioning: bool = False
    time_input: Literal["level", "noise"] = "level"

    def _check_sizes(self) -> Iterator[str]:
        yield from super()._check_sizes()
        yield from wrong_sizes(self, "conditioning_width")

    @property
    def network(self) -> type["DiTNetwork"]:
        """The network class."""
        return DiTNetwork

    @property
    def max_length(self) -> int | None:
        """None, for no limit: positions are rotary."""
        return None


class Embedding(HasTable):
    """The first layer: token embedding, and the embedding of the noise level."""

    def __init__(self, config: DiT, factory: LayerFactory) -> None:
        super().__init__()
        self.tokens = factory.embedding(config.num_rows, config.width)
        self.time_in = nn.Linear(FREQUENCIES, config.conditioning_width)
        self.time_out = nn.Linear(config.conditioning_width, config.conditioning_width)
        self.time_conditioning = config.time_conditioning
        self.total_noise = config.time_input == "noise"
        self.cut = factory.cut

    def forward(self, inputs: tuple[Tensor, ...]) -> Stream:
        """``(level_BK, ids_BL[, keys_BL])`` to the stream."""
        level_BK, ids_BL, *keys = inputs
        if not self.time_conditioning:
            level_BK = torch.zeros_like(level_BK[:, :1])
        fed_BK = -torch.log1p(-0.999 * level_BK) if self.total_noise else 1000.0 * level_BK
        features = sinusoid(fed_BK).to(self.time_in.weight.dtype)
        c_BKC = F.silu(self.time_out(F.silu(self.time_in(features))))
        return (self.cut(embedded(self.tokens, ids_BL)), c_BKC, *keys)


class Block(Checkpointed):
    """One DiT block: attention, then the MLP, each modulated and gated by the level."""

    def __init__(self, config: DiT, factory: LayerFactory) -> None:
        super().__init__()
        self.attention_norm = Norm(config)
        self.attention = Attention(config, factory)
        self.mlp_norm = Norm(config)
        self.mlp = Mlp(config, factory)
        self.modulation = nn.Linear(config.conditioning_width, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.spread = factory.spread

    def _forward(self, stream: Stream) -> Stream:
        x, c, *rest = stream
        keys = rest[0] if rest else None
        modulation = self.spread(self.modulation(c))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        normed = self.attention_norm(x, self.spread)
        attended = self.attention(modulate(normed, shift_a, scale_a), keys)
        x = torch.addcmul(x, gate_a, self.dropout(attended))
        normed = self.mlp_norm(x, self.spread)
        changed = self.mlp(modulate(normed, shift_m, scale_m))
        return (torch.addcmul(x, gate_m, self.dropout(changed)), c, *rest)


class OutputLayer(HasHead):
    """The last layer: adaLN-modulated norm and head, at the predicted positions only."""

    def __init__(self, config: DiT, factory: LayerFactory) -> None:
        super().__init__(config, factory)
        self.modulation = nn.Linear(config.conditioning_width, 2 * config.width)

    def forward(self, stream: Stream, predict_mask_BL: Tensor) -> Outputs:
        """Logits ``[M, R]`` at the M true positions of ``predict_mask_BL`` (bool), in row order."""
        x, c, *_ = stream
        x = self.whole(x)
        row_M, column_M = self.read_at(predict_mask_BL)
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        if c.shape[1] == 1:
            shift_MD, scale_MD = shift[row_M, 0], scale[row_M, 0]
        else:
            shift_MD, scale_MD = shift[row_M, column_M], scale[row_M, column_M]
        hidden_MD = modulate(self.norm(x[row_M, column_M]), shift_MD, scale_MD)
        return {"logits": self.head(hidden_MD)}


class DiTNetwork(Denoiser):
    """The DiT network: embedding, adaLN blocks and modulated head."""

    config: DiT

    def _build(self, index: int) -> nn.Module:
        if index == 0:
            return Embedding(self.config, self.factory)
        if index == self.last:
            return OutputLayer(self.config, self.factory)
        return Block(self.config, self.factory)
