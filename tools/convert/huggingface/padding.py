"""Padding at any place of a row: the network is run with the text of every row in front.

A denoiser counts positions from the start of a row, and one with shifted output reads the
prediction for a token off the position before it. Both mean the row without its padding. So
rows are put in order before the network runs, text first and padding behind, and what comes
out is put back: each prediction is that of the row alone, under left, right and inner padding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TextFirst:
    """Where the text of each row stands.

    Args:
        length: L, places of a row.
        given_BL: bool, what is text, in the order of the caller; None for all.
        valid_BL: the same in the order of the network.
        order_BL: which place of the caller each place of the network is; None where both are one.
    """

    length: int
    given_BL: Tensor | None = None
    valid_BL: Tensor | None = None
    order_BL: Tensor | None = None

    def forth(self, x: Tensor) -> Tensor:
        """``[B, L, ...]``, text first."""
        return x if self.order_BL is None else x.gather(1, _like(self.order_BL, x))

    def back(self, x: Tensor) -> Tensor:
        """``[B, N, ...]`` in the order of the caller ``[B, L, ...]``; zeros beyond N."""
        whole = x[:, : self.length]
        if x.shape[1] < self.length:
            missing = x.new_zeros(x.shape[0], self.length - x.shape[1], *x.shape[2:])
            whole = torch.cat((x, missing), dim=1)
        if self.order_BL is None:
            return whole
        return torch.empty_like(whole).scatter(1, _like(self.order_BL, whole), whole)


def _like(order_BL: Tensor, x: Tensor) -> Tensor:
    shape = (*order_BL.shape, *x.shape[2:])
    return order_BL.view(*order_BL.shape, *(1 for _ in x.shape[2:])).expand(shape)


def text_first(attention_mask: Tensor | None, read: Tensor) -> TextFirst:
    """The order in which ``read`` (ids or embeddings, ``[B, L, ...]``) is run.

    Args:
        attention_mask: 1 at text and 0 at padding, ``[B, L]`` of any dtype; or of four
            dimensions as transformers makes them of that, bool or additive.

    Raises:
        ValueError: its shape is another, it holds something else, or it hides different keys
            from different positions.
    """
    length = read.shape[1]
    if attention_mask is None:
        return TextFirst(length=length)
    given_BL = _keys(attention_mask) if attention_mask.dim() == 4 else attention_mask
    if given_BL.shape != read.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {list(attention_mask.shape)}; give [batch, length], "
            f"here {list(read.shape[:2])}"
        )
    known = not torch.compiler.is_compiling()
    if given_BL.dtype != torch.bool:
        if known and bool(((given_BL != 0) & (given_BL != 1)).any()):
            raise ValueError("attention_mask holds more than 1 (text) and 0 (padding)")
        given_BL = given_BL.bool()
    if known and bool(given_BL.all()):
        return TextFirst(length=length)
    if known and not bool((given_BL[:, 1:] & ~given_BL[:, :-1]).any()):
        return TextFirst(length=length, given_BL=given_BL, valid_BL=given_BL)
    order_BL = (~given_BL).to(torch.uint8).argsort(dim=1, stable=True)
    valid_BL = given_BL.gather(1, order_BL)
    return TextFirst(length=length, given_BL=given_BL, valid_BL=valid_BL, order_BL=order_BL)


def _keys(mask_B1QK: Tensor) -> Tensor:
    """Which keys a mask of four dimensions shows, bool ``[B, K]``."""
    if mask_B1QK.dtype == torch.bool:
        seen = mask_B1QK
    elif mask_B1QK.is_floating_point() and not bool((mask_B1QK > 0).any()):
        seen = mask_B1QK == 0  # additive: 0 shows, a large negative number hides
    else:
        seen = mask_B1QK > 0
    seen_BQK = seen.flatten(1, 2)
    keys_BK = seen_BQK.any(dim=1)
    same_BQK = seen_BQK == keys_BK[:, None]
    if seen_BQK.shape[1] == seen_BQK.shape[2]:
        same_BQK = same_BQK | ~keys_BK[:, :, None]  # what padding sees is of no account
    if seen.shape[1] != 1 or not bool(same_BQK.all()):
        raise ValueError(
            "an attention_mask of four dimensions hides different keys from different positions; "
            "here every position sees all that is no padding: give [batch, length]"
        )
    return keys_BK
