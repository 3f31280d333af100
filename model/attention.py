"""Attention: the one place that knows which kernel computes it.

flash-attn (Dao 2023) runs where it is importable, on a GPU, in half precision and
without a padding mask; PyTorch's scaled dot-product attention runs everywhere else, and
picks the same algorithm on a GPU. Both give the same numbers up to rounding.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def _flash_attention() -> Callable[..., Tensor] | None:
    try:
        from flash_attn import flash_attn_func  # pip install "palimpsest[flash]"
    except ImportError:
        return None
    return flash_attn_func


def attention(
    q_BLHE: Tensor,
    k_BLHE: Tensor,
    v_BLHE: Tensor,
    valid_BL: Tensor | None,
    *,
    causal: bool = False,
    seen_LL: Tensor | None = None,
) -> Tensor:
    """Softmax attention of every position to every (valid) position, scaled by 1/sqrt(E).

    Args:
        q_BLHE: queries; k_BLHE, v_BLHE: keys and values, all ``[B, L, H, E]``, or keys and
            values of fewer heads, each shared by as many consecutive queries.
        valid_BL: bool, keys that may be seen; None for all.
        causal: no position sees a later one.
        seen_LL: bool, which keys (columns) each query may see besides.

    Returns:
        ``[B, L, H, E]``. A sample without any valid key gives zeros.
    """
    half = q_BLHE.dtype in (torch.float16, torch.bfloat16)
    if q_BLHE.is_cuda and half and valid_BL is None and seen_LL is None:
        flash = _flash_attention()
        if flash is not None:
            return flash(q_BLHE, k_BLHE, v_BLHE, causal=causal)
    mask = None if valid_BL is None else valid_BL[:, None, None, :]
    if causal and (mask is not None or seen_LL is not None):
        earlier_LL = torch.ones(2 * q_BLHE.shape[1:2], dtype=torch.bool, device=q_BLHE.device)
        seen_LL = earlier_LL.tril() if seen_LL is None else seen_LL & earlier_LL.tril()
    if seen_LL is not None:
        mask = seen_LL if mask is None else mask & seen_LL
    q, k, v = (x.transpose(1, 2) for x in (q_BLHE, k_BLHE, v_BLHE))
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=causal and mask is None,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    if valid_BL is not None:
        out = out.masked_fill(~valid_BL.any(dim=1)[:, None, None, None], 0.0)
    return out.transpose(1, 2)
