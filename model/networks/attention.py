"""Softmax attention, with the choice of kernel: flash-attn, flex attention or SDPA.

flash-attn (Dao 2023) is used if installed, on a GPU, in half precision, without a mask; PyTorch's
flex attention on a GPU with a mask; otherwise scaled dot-product attention (SDPA) with a dense
mask. All give the same numbers up to rounding.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.attention_layouts import FULL, AttentionLayout, Cached, Causal, dense_mask


@cache
def _flash_attention() -> Callable[..., Tensor] | None:
    try:
        from flash_attn import flash_attn_func  # pip install "palimpsest[flash]"
    except ImportError:
        return None
    return flash_attn_func


def attention(
    q_BLHE: Tensor,
    k_BSHE: Tensor,
    v_BSHE: Tensor,
    keys_BS: Tensor | None = None,
    layout: AttentionLayout = FULL,
) -> Tensor:
    """Softmax attention under an attention mask, scaled by 1/sqrt(E).

    Args:
        q_BLHE: queries; k_BSHE, v_BSHE: keys and values, all ``[B, L, H, E]``; keys and values
            may have fewer heads, each shared by equally many consecutive query heads.
        keys_BS: bool or uint8 mask of the keys to attend to; or int32 segment ids, where
            positions attend only within their segment and 0 masks a key; None for all keys.
        layout: which positions attend to which.

    Returns:
        ``[B, L, H, E]``. A query with no keys gives zeros.
    """
    is_causal = isinstance(layout, Causal) and keys_BS is None
    unmasked = keys_BS is None and (is_causal or layout.sees_all(q_BLHE.shape[1]))
    if q_BLHE.is_cuda and unmasked and q_BLHE.dtype in (torch.float16, torch.bfloat16):
        flash = _flash_attention()
        if flash is not None:
            return flash(q_BLHE, k_BSHE, v_BSHE, causal=is_causal)
    q, k, v = (x.transpose(1, 2) for x in (q_BLHE, k_BSHE, v_BSHE))
    shared = q.shape[1] != k.shape[1]
    if not unmasked and _can_flex(q_BLHE, k_BSHE, layout):
        mask = block_mask(layout, keys_BS, q.shape[2], q.device)
        return _flex_attention()(q, k, v, block_mask=mask, enable_gqa=shared).transpose(1, 2)
    mask = None if unmasked else _dense(layout, keys_BS, q.shape[2], k.shape[2], q.device)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=shared
    )
    if keys_BS is not None:
        assert mask is not None
        out = out.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)
    return out.transpose(1, 2)


def _dense(
    layout: AttentionLayout,
    keys_BS: Tensor | None,
    num_queries: int,
    num_keys: int,
    device: torch.device,
) -> Tensor | None:
    """Dense bool mask that broadcasts to ``[B, H, L, S]``; None where all keys are attended to."""
    seen = dense_mask(layout, num_queries, num_keys, device)
    if keys_BS is None:
        return seen
    by_sample = keys_BS[:, None, None, :] > 0
    if keys_BS.dtype == torch.int32:
        by_sample = by_sample & (keys_BS[:, None, :, None] == keys_BS[:, None, None, :])
    return by_sample if seen is None else by_sample & seen


# -- flex attention ---------------------------------------------------------------------------


def _can_flex(q_BLHE: Tensor, k_BSHE: Tensor, layout: AttentionLayout) -> bool:
    """Whether flex attention can run: GPU, self-attention, no cache, head width 2^n >= 16."""
    size = q_BLHE.shape[-1]
    square = q_BLHE.shape[1] == k_BSHE.shape[1] and not isinstance(layout, Cached)
    return q_BLHE.is_cuda and square and size >= 16 and size & (size - 1) == 0


@cache
def _flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


def block_mask(
    layout: AttentionLayout, keys_BS: Tensor | None, length: int, device: torch.device
) -> Any:
    """Flex attention's block mask: which tiles of ``[L, L]`` are attended to, partly or fully."""
    if keys_BS is None:
        return _layout_mask(layout, length, device)
    rule, segments = layout.rule(length, device), keys_BS.dtype == torch.int32

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        found = keys_BS[b, k] > 0
        if segments:
            found = found & (keys_BS[b, q] == keys_BS[b, k])
        return found if rule is None else found & rule(q, k)

    return _made(seen, len(keys_BS), length, device)


@lru_cache(maxsize=16)
def _layout_mask(layout: AttentionLayout, length: int, device: torch.device) -> Any:
    rule = layout.rule(length, device)
    assert rule is not None
    return _made(lambda b, h, q, k: rule(q, k), None, length, device)


def _made(rule: Callable[..., Tensor], num: int | None, length: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(rule, num, None, length, length, device=str(device))
