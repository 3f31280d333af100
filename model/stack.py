"""What all networks here are: an ordered list of layers.

One process runs the list from first to last; a stage of a pipeline builds a span of it
only. The names of the parameters (``layers.0.tokens.weight``, ...) are the same under
every layout.
"""

from typing import Any

from torch import nn

from model.config import ModelConfig
from model.initialize import initialize
from model.layers import Recomputed, Stream
from model.linears import DenseFactory, LayerFactory


class Stack(nn.Module):
    """A list of layers, or a span of it.

    Args:
        factory: builds the wide layers, whole or in part.
        span: which layers to build, of ``config.total_layers``; by default all.
        recompute_every: activation checkpointing of every n-th block; 0 for none.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        seed: int = 0,
        factory: LayerFactory | None = None,
        span: range | None = None,
        recompute_every: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.last = config.total_layers - 1
        self.factory = factory or DenseFactory()
        self.span = range(self.last + 1) if span is None else span
        self.layers = nn.ModuleDict({str(index): self._build(index) for index in self.span})
        if config.shares_embedding and {0, self.last} <= set(self.span):
            self._share()
        for index in self.span:
            layer = self.layers[str(index)]
            if isinstance(layer, Recomputed) and recompute_every:
                layer.recompute = index % recompute_every == 0
        initialize(self.parameter_names(), self.factory, seed, config.initial_embedding_std)

    def _build(self, index: int) -> nn.Module:
        """Layer number ``index``."""
        raise NotImplementedError

    def _share(self) -> None:
        """Make the last layer use the first one's table of token embeddings."""
        raise NotImplementedError

    def parameter_names(self) -> dict[nn.Parameter, str]:
        """The canonical name of each parameter; that of a shared table is its first place's."""
        names = {parameter: name for name, parameter in self.named_parameters()}
        if self.config.shares_embedding and self.last in self.span:
            last: Any = self.layers[str(self.last)]
            names[last.weight] = "layers.0.tokens.weight"
        return names

    def body(self, stream: Stream) -> Stream:
        """The span's layers, one after the other, but for the last of all."""
        for name, layer in self.layers.items():
            if name != str(self.last):
                stream = layer(stream)
        return stream
