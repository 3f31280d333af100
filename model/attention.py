"""Bidirectional attention: the one place that knows which kernel computes it.

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


def attention(q_BLHE: Tensor, k_BLHE: Tensor, v_BLHE: Tensor, valid_BL: Tensor | None) -> Tensor:
    """Softmax attention of every position to every (valid) position, scaled by 1/sqrt(E).

    Args:
        q_BLHE: queries; k_BLHE, v_BLHE: keys and values, all ``[B, L, H, E]``.
        valid_BL: bool, keys that may be seen; None for all.

    Returns:
        ``[B, L, H, E]``. A sample without any valid key gives zeros.
    """
    half = q_BLHE.dtype in (torch.float16, torch.bfloat16)
    if q_BLHE.is_cuda and half and valid_BL is None:
        flash = _flash_attention()
        if flash is not None:
            return flash(q_BLHE, k_BLHE, v_BLHE)
    seen = None if valid_BL is None else valid_BL[:, None, None, :]
    q, k, v = (x.transpose(1, 2) for x in (q_BLHE, k_BLHE, v_BLHE))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    if valid_BL is not None:
        out = out.masked_fill(~valid_BL.any(dim=1)[:, None, None, None], 0.0)
    return out.transpose(1, 2)
