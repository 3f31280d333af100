"""Absorbing (masking) process: a token is kept with probability alpha_t, else [MASK].

Austin et al. 2021 (D3PM), section 3.1; in continuous time Sahoo et al. 2024, eqs. 1-6.
"""

import torch
from torch import Tensor


def corrupt(ids_BL: Tensor, alpha_BK: Tensor, uniform_BL: Tensor, mask: int) -> Tensor:
    """Sample x_t: ``[MASK]`` wherever the uniform draw is at least alpha."""
    return torch.where(uniform_BL < alpha_BK, ids_BL, mask)


def stay_masked(alpha_s: Tensor, alpha_t: Tensor) -> Tensor:
    """q(x_s = [MASK] | x_t = [MASK]) = (1 - alpha_s) / (1 - alpha_t), for s < t."""
    return (1 - alpha_s) / (1 - alpha_t)


def bound_weight(alpha: Tensor, dalpha: Tensor) -> Tensor:
    """-alpha' / (1 - alpha), the weight of a masked token in the NELBO (MDLM, eq. 10)."""
    return -dalpha / (1 - alpha)


def step_weight(alpha_s: Tensor, alpha_t: Tensor) -> Tensor:
    """(alpha_s - alpha_t) / (1 - alpha_t), the weight of a masked token in a step from t to s.

    The KL divergence of a step of the discrete-time bound is this times -log p(x_0 | x_t) if the
    prediction never is [MASK] (Sahoo et al. 2024, eq. 8).
    """
    return (alpha_s - alpha_t) / (1 - alpha_t)


def log_uniform(uniform: Tensor, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Masked shares 1 - alpha, log-uniform between two, and the weight of a masked token.

    Importance sampling of the time with a density proportional to the weight -alpha' / (1 - alpha)
    of the bound: what remains is the constant log(most / least) (Sahoo et al. 2024, appendix).

    Args:
        uniform: in (0, 1).
        least, most: the smallest and the largest share, scalars.

    Returns:
        The shares and the weight, shaped like ``uniform``.
    """
    ratio = torch.log(most / least)
    return least * torch.exp(uniform * ratio), ratio.expand_as(uniform)
