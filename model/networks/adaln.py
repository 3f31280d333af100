"""adaLN time conditioning: sinusoidal features of the noise level, and modulation.

Adaptive layer norm (DiT, Peebles & Xie 2023): the norms of a block are shifted, scaled and gated
by linear functions of the embedded level.
"""

import math

import torch
from torch import Tensor

FREQUENCIES = 256
"""Width of the sinusoidal features of the noise level, before the MLP (as in DiT)."""


def sinusoid(x_BK: Tensor) -> Tensor:
    """Sinusoidal features ``[B, K, 256]``: cosines, then sines, at frequencies 1 to 1/10000."""
    half = FREQUENCIES // 2
    step = torch.arange(half, dtype=torch.float32, device=x_BK.device) / half
    angle = x_BK.float()[..., None] * torch.exp(-math.log(10_000.0) * step)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def modulate(x_BLD: Tensor, shift_BKD: Tensor, scale_BKD: Tensor) -> Tensor:
    """adaLN modulation: ``x (1 + scale) + shift``."""
    return torch.addcmul(shift_BKD, x_BLD, 1 + scale_BKD)
