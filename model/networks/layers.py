"""Layers that networks are built from: norms, rotary attention, MLP, activation checkpointing.

A layer of a network takes and returns a tuple of tensors, floating-point first, integers
last, so that a pipeline may split between any two layers.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.networks.attention import attention
from model.networks.attention_layouts import FULL, AttentionLayout, Cached
from model.networks.config import ModelConfig
from model.networks.linears import LayerFactory

Stream = tuple[Tensor, ...]
"""Tensors passed between layers: ``(h_BLD, c_BKC)``, then ``keys_BL`` if the attention mask
differs between samples, a uint8 padding mask or int32 segment ids
(:func:`model.networks.attention.attention`)."""


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the width, with a gain and an optional bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.width))
        self.bias = nn.Parameter(torch.empty(config.width)) if config.norm_bias else None
        self.root_mean_square = config.norm == "rmsnorm"
        self.eps = config.norm_eps

    def forward(self, x_BLD: Tensor, spread: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Normalize, keeping the shape.

        Args:
            spread: applied to the parameters if x has only this rank's positions
                (sequence parallelism).
        """
        gain = spread(self.weight) if spread else self.weight
        if self.root_mean_square:
            return F.rms_norm(x_BLD, gain.shape, gain, eps=self.eps)
        bias = spread(self.bias) if spread and self.bias is not None else self.bias
        return F.layer_norm(x_BLD, gain.shape, gain, bias, eps=self.eps)


class HeadNorm(nn.Module):
    """RMSNorm over each query or key head, with one gain for all heads (QK norm)."""

    def __init__(self, config: ModelConfig, factory: LayerFactory) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.head_width))
        self.eps, self.share = config.norm_eps, factory.share

    def forward(self, x_BLHE: Tensor) -> Tensor:
        """Normalize, keeping the shape."""
        return F.rms_norm(x_BLHE, self.weight.shape, self.share(self.weight), eps=self.eps)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rotary_table(
    length: int, width: int, base: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Rotary cosines and sines ``[L, 1, E/2]``, computed in float64.

    Inference mode is off, since the cached tensors may be used in training later.
    """
    # On the CPU whatever the default device: tables are cached, and must not depend on it.
    place = torch.arange(length, dtype=torch.float64, device="cpu")
    step = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
    angle = torch.outer(place, base ** (-step / width))[:, None, :]
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(x_BLHE: Tensor, base: float, places: range | None = None) -> Tensor:
    """Rotary position embedding, rotating dimension i with i + E/2 (Su et al. 2021, eq. 34).

    Args:
        places: position ids of the L positions, or of the first of several parts of equal length
            and ids; by default 0, 1, ...
    """
    length, width = x_BLHE.shape[1], x_BLHE.shape[3]
    places = range(length) if places is None else places
    cos, sin = _rotary_table(places.stop, width, base, x_BLHE.device, x_BLHE.dtype)
    if len(places) != places.stop or len(places) != length:
        copies = length // len(places)
        cos, sin = (x[places.start :].repeat(copies, 1, 1) for x in (cos, sin))
    first, second = x_BLHE.chunk(2, dim=-1)
    turned_first = torch.addcmul(first * cos, second, sin, value=-1)
    turned_second = torch.addcmul(second * cos, first, sin)
    return torch.cat((turned_first, turned_second), dim=-1)


class HasLayout(nn.Module):
    """A layer that depends on the attention layout or position ids.

    Attributes:
        layout: attention layout, set before each pass by
            :meth:`model.networks.base.Network.attend`.
        part: index of the part of the samples, if a pass is split into several.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layout: AttentionLayout = FULL
        self.part = 0

    def forget(self) -> None:
        """Clear state kept between passes (the key/value cache)."""


class Attention(HasLayout):
    """Multi-head attention with separate q, k and v projections, so that heads can be sharded.

    Args:
        rotary: apply rotary position embeddings; not for cross-attention, whose keys are at
            positions of another text, nor with learned positions.
    """

    def __init__(self, config: ModelConfig, factory: LayerFactory, *, rotary: bool = True) -> None:
        super().__init__()
        width, num_heads, size = config.width, config.num_heads, config.head_width
        self.q = factory.column(width, config.attention_width, bias=config.qkv_bias)
        groups = (width, num_heads, config.kv_heads, size)
        self.k = factory.grouped(*groups, bias=config.qkv_bias)
        self.v = factory.grouped(*groups, bias=config.qkv_bias)
        self.q_norm = HeadNorm(config, factory) if config.qk_norm else None
        self.k_norm = HeadNorm(config, factory) if config.qk_norm else None
        self.out = factory.row(config.attention_width, width, bias=config.attention_bias)
        self.enter = factory.enter
        self.head_width = size
        self.rotary_base = config.rotary_base if rotary else None
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(
        self, x_BLD: Tensor, keys_BS: Tensor | None, memory_BSD: Tensor | None = None
    ) -> Tensor:
        """Self-attention, or cross-attention to a memory: ``[B, L, D]`` to ``[B, L, D]``.

        Args:
            keys_BS: padding mask or segment ids of the keys; None for all keys
                (:func:`model.networks.attention.attention`).
            memory_BSD: keys and values are computed from it if given, otherwise from x.
        """
        x_BLD = self.enter(x_BLD)
        from_BSD = x_BLD if memory_BSD is None else self.enter(memory_BSD)
        q, k, v = (
            project(read).unflatten(-1, (-1, self.head_width))
            for project, read in ((self.q, x_BLD), (self.k, from_BSD), (self.v, from_BSD))
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary_base is not None:
            places = self.layout.places(q.shape[1])
            q, k = rotate(q, self.rotary_base, places), rotate(k, self.rotary_base, places)
        if isinstance(self.layout, Cached):
            k, v = self._behind_cache(self.layout, k, v)
        out = attention(q, k, v, keys_BS, self.layout)
        return self.out(out.flatten(2))

    def _behind_cache(self, layout: Cached, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Prepend cached keys and values, and update the cache if ``layout.keep``."""
        if layout.past:
            before = (x[:, : layout.past] for x in self._cache[self.part])
            k, v = (torch.cat(pair, dim=1) for pair in zip(before, (k, v), strict=True))
        if layout.keep:
            self._cache[self.part] = (k, v)
        return k, v

    def forget(self) -> None:
        """Clear the key/value cache."""
        self._cache.clear()


class Mlp(nn.Module):
    """MLP: two layers with GELU, or gated, SwiGLU or GEGLU (Shazeer 2020, eqs. 5 and 6)."""

    def __init__(self, config: ModelConfig, factory: LayerFactory) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden_width
        gated = config.mlp != "gelu"
        self.gate_by = F.silu if config.mlp == "swiglu" else F.gelu
        self.up = factory.column(width, hidden, bias=not gated)
        self.gate = factory.column(width, hidden, bias=False) if gated else None
        self.down = factory.row(hidden, width, bias=not gated)
        self.approximate = "tanh" if config.gelu == "tanh" else "none"
        self.enter = factory.enter

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Apply the MLP: ``[B, L, D]`` to ``[B, L, D]``."""
        x_BLD = self.enter(x_BLD)
        if self.gate is None:
            return self.down(F.gelu(self.up(x_BLD), approximate=self.approximate))
        return self.down(self.gate_by(self.gate(x_BLD)) * self.up(x_BLD))


def embedded(table: nn.Module, ids: Tensor) -> Tensor:
    """Look up ids in an embedding table, ``[..., D]``; floating-point input is returned as is."""
    if ids.is_floating_point():
        return ids
    rows: Tensor = table(ids)
    return rows


class HasTable(nn.Module):
    """A layer with a token embedding table, ``tokens``."""

    tokens: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The embedding table, or this rank's rows."""
        weight = self.tokens.weight
        assert isinstance(weight, nn.Parameter)
        return weight


class Checkpointed(nn.Module):
    """A block with optional activation checkpointing (Chen et al. 2016).

    Attributes:
        recompute: recompute the block's activations in backward instead of keeping them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recompute = False

    def forward(self, stream: Stream) -> Stream:
        """The stream after this block."""
        if self.recompute and torch.is_grad_enabled():
            recomputed: Stream = checkpoint(self._forward, stream, use_reentrant=False)
            return recomputed
        return self._forward(stream)

    def _forward(self, stream: Stream) -> Stream:
        raise NotImplementedError
