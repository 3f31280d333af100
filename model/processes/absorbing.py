"""The absorbing process: a token is itself with probability alpha_t, else [MASK].

Austin et al. 2021 (D3PM), section 3.1; in continuous time Sahoo et al. 2024, eqs. 1-6.
"""

import torch
from torch import Tensor


def corrupt(ids_BL: Tensor, alpha_BK: Tensor, uniform_BL: Tensor, mask: int) -> Tensor:
    """x_t: ``[MASK]`` wherever the uniform draw is at least alpha."""
    return torch.where(uniform_BL < alpha_BK, ids_BL, mask)


def stay_masked(alpha_s: Tensor, alpha_t: Tensor) -> Tensor:
    """q(x_s = [MASK] | x_t = [MASK]) = (1 - alpha_s) / (1 - alpha_t), for s < t."""
    return (1 - alpha_s) / (1 - alpha_t)


def bound_weight(alpha: Tensor, dalpha: Tensor) -> Tensor:
    """-alpha' / (1 - alpha), the weight of a masked token in the NELBO (MDLM, eq. 10)."""
    return -dalpha / (1 - alpha)
