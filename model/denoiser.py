"""The DiT denoiser: an ordered list of layers.

One process runs the list from first to last; a pipeline runs pieces of it. The names of
the parameters (``layers.0.tokens.weight``, ...) are the same under every layout.
"""

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.initialize import initialize
from model.layers import Block, Embedding, OutputLayer
from model.linears import DenseFactory, LayerFactory


class Denoiser(nn.Module):
    """Noisy ids and their level to a categorical over the vocabulary at chosen positions."""

    def __init__(
        self, config: ModelConfig, *, seed: int = 0, factory: LayerFactory | None = None
    ) -> None:
        super().__init__()
        self.config = config
        factory = factory or DenseFactory()
        first = Embedding(config, factory)
        blocks = [Block(config, factory) for _ in range(config.num_layers)]
        last = OutputLayer(config, factory)
        if config.tied_head:
            last.head.weight = first.tokens.weight
        self.layers = nn.ModuleList([first, *blocks, last])
        initialize(self, seed, config.initial_embedding_std)

    def forward(
        self,
        ids_BL: Tensor,
        level_BK: Tensor,
        where_BL: Tensor | None = None,
        valid_BL: Tensor | None = None,
    ) -> Tensor:
        """Logits ``[M, R]`` at the M true positions of ``where_BL`` (default: everywhere).

        Args:
            ids_BL: int64 ids, [MASK] at noisy positions.
            level_BK: noise level in [0, 1], K = 1 or L.
            where_BL: bool, positions at which the head runs.
            valid_BL: bool, no padding; used only if the model hides padding.
        """
        if where_BL is None:
            where_BL = torch.ones_like(ids_BL, dtype=torch.bool)
        stream: tuple[Tensor, ...] = (level_BK, ids_BL)
        if self.config.hide_padding and valid_BL is not None:
            stream = (*stream, valid_BL.to(torch.uint8))
        *body, last = self.layers
        for layer in body:
            stream = layer(stream)
        return last(stream, where_BL)
