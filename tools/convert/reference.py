"""Attention and rotation as the layouts' own logits need them: plain, and apart from model/."""

import torch
import torch.nn.functional as F
from torch import Tensor


def heads(x_BLD: Tensor, num: int) -> Tensor:
    """``[B, L, H E]`` to ``[B, H, L, E]``."""
    return x_BLD.unflatten(-1, (num, -1)).transpose(1, 2)


def rotated(x_BHLE: Tensor, base: float) -> Tensor:
    """Rotary positions in the form that turns the two halves of a head against each other."""
    length, width = x_BHLE.shape[-2:]
    rate = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), rate).repeat(1, 2)
    half = torch.cat((-x_BHLE[..., width // 2 :], x_BHLE[..., : width // 2]), dim=-1)
    return x_BHLE * angle.cos().float() + half * angle.sin().float()


def attend(q_BHLE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax attention, ``[B, L, H E]``; G heads of keys and values serve H / G queries each."""
    share = q_BHLE.shape[1] // k_BGLE.shape[1]
    k, v = (x.repeat_interleave(share, dim=1) for x in (k_BGLE, v_BGLE))
    out = F.scaled_dot_product_attention(q_BHLE, k, v, is_causal=causal)
    return out.transpose(1, 2).flatten(2)
