"""The parts that networks are built from: norms, rotary attention, MLP, table, head.

A layer of a network takes and returns a tuple of tensors: floating ones first, integers
last, so that a pipeline may cut between any two of them.
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
"""``(h_BLD, c_BKC)``, and ``keys_BL`` behind them where samples differ in what is seen
(:func:`model.networks.attention.attention`): uint8 if padding is hidden, int32 ids of segments."""


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the width, with a gain; a bias only where asked for."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.width))
        self.bias = nn.Parameter(torch.empty(config.width)) if config.norm_bias else None
        self.root_mean_square = config.norm == "rmsnorm"
        self.eps = config.norm_eps

    def forward(self, x_BLD: Tensor, spread: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The same shape, normalised; ``spread`` where x holds this rank's positions only."""
        gain = spread(self.weight) if spread else self.weight
        if self.root_mean_square:
            return F.rms_norm(x_BLD, gain.shape, gain, eps=self.eps)
        bias = spread(self.bias) if spread and self.bias is not None else self.bias
        return F.layer_norm(x_BLD, gain.shape, gain, bias, eps=self.eps)


class HeadNorm(nn.Module):
    """RMSNorm over each head of queries or keys, one gain for all of them."""

    def __init__(self, config: ModelConfig, factory: LayerFactory) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.head_width))
        self.eps, self.share = config.norm_eps, factory.share

    def forward(self, x_BLHE: Tensor) -> Tensor:
        """The same shape, normalised."""
        return F.rms_norm(x_BLHE, self.weight.shape, self.share(self.weight), eps=self.eps)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rotary_table(
    length: int, width: int, base: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[L, 1, E/2]``, computed in float64.

    Not in inference mode, whoever asks first: training may ask next.
    """
    # On the CPU whatever the default device is: tables are kept, and the same everywhere.
    place = torch.arange(length, dtype=torch.float64, device="cpu")
    step = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
    angle = torch.outer(place, base ** (-step / width))[:, None, :]
    return angle.cos().to(device, dtype), angle.sin().to(device, dtype)


def rotate(x_BLHE: Tensor, base: float, places: range | None = None) -> Tensor:
    """Rotary positions, rotating dimension i with i + E/2 (Su et al. 2021, eq. 34).

    Args:
        places: of the L positions, or of the first of several equal parts; by default from 0 on.
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
    """A layer to which positions have an order: see :meth:`model.networks.base.Network.attend`.

    Attributes:
        layout: who sees whom, set before each pass.
        part: which part of the samples a pass is of, where they are cut into several.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layout: AttentionLayout = FULL
        self.part = 0

    def forget(self) -> None:
        """Drop what is kept from pass to pass."""


class Attention(HasLayout):
    """Multi-head attention; q, k and v stay apart, so that heads may be split over ranks.

    Args:
        rotary: turn queries and keys by their positions; not for a memory, whose positions
            are of another text, nor where positions are learned.
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
        """``[B, L, D]`` to ``[B, L, D]``; keys and values come from the memory, or from x.

        Args:
            keys_BS: which keys samples may see, or segments; None for all
                (:func:`model.networks.attention.attention`).
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
        """Keys and values of the earlier positions, and of these."""
        if layout.past:
            before = (x[:, : layout.past] for x in self._cache[self.part])
            k, v = (torch.cat(pair, dim=1) for pair in zip(before, (k, v), strict=True))
        if layout.keep:
            self._cache[self.part] = (k, v)
        return k, v

    def forget(self) -> None:
        """Drop cached keys and values."""
        self._cache.clear()


class Mlp(nn.Module):
    """Two layers with GELU, or with a gate (Shazeer 2020, eqs. 5 and 6)."""

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
        """``[B, L, D]`` to ``[B, L, D]``."""
        x_BLD = self.enter(x_BLD)
        if self.gate is None:
            return self.down(F.gelu(self.up(x_BLD), approximate=self.approximate))
        return self.down(self.gate_by(self.gate(x_BLD)) * self.up(x_BLD))


def embedded(table: nn.Module, ids: Tensor) -> Tensor:
    """The rows of a table ``[..., D]``; what holds vectors in place of ids stays as it is."""
    if ids.is_floating_point():
        return ids
    rows: Tensor = table(ids)
    return rows


class HasTable(nn.Module):
    """A layer with a table of token embeddings, ``tokens``."""

    tokens: nn.Module

    @property
    def weight(self) -> nn.Parameter:
        """The table, or this rank's rows of it."""
        weight = self.tokens.weight
        assert isinstance(weight, nn.Parameter)
        return weight


class Checkpointed(nn.Module):
    """A block, whose insides backward may compute again.

    Attributes:
        recompute: whether it does, instead of keeping them (activation checkpointing, Chen et
            al. 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        self.recompute = False

    def forward(self, stream: Stream) -> Stream:
        """The stream, with its part of it updated."""
        if self.recompute and torch.is_grad_enabled():
            recomputed: Stream = checkpoint(self._forward, stream, use_reentrant=False)
            return recomputed
        return self._forward(stream)

    def _forward(self, stream: Stream) -> Stream:
        raise NotImplementedError
