"""A plain MDLM sampling loop, the yardstick of `python -m tools.bench sample`.

The cached ancestral sampler of the public code of Sahoo et al. (2024), ``ddpm_cache``: the network
and a softmax at every position, a draw over the whole vocabulary at every position, and the same
prediction again as long as no token of the batch changed. Written from the procedure over the same
parameters as ours; nothing in it is slower than it need be.
"""

import torch
from torch import Tensor

from model.networks.base import Network
from tools.bench import reference

LEAST = 1e-5
"""The last time of the grid; what is masked then takes its likeliest token."""


def cached_sample(denoiser: Network, *, batch: int, length: int, steps: int) -> tuple[Tensor, int]:
    """Generate ids ``[batch, length]``, and count the evaluations of the network.

    ``torch.manual_seed`` makes it repeatable.
    """
    mask = denoiser.config.mask
    device = denoiser.embedding.weight.device
    ids_BL = torch.full((batch, length), mask, device=device)
    time_T = torch.linspace(1, LEAST, steps + 1)
    evaluations, p_BLR = 0, None
    for t, s in zip(time_T[:-1].tolist(), time_T[1:].tolist(), strict=True):
        if p_BLR is None:
            p_BLR = _prediction(denoiser, ids_BL, t)
            evaluations += 1
        step_BLR = p_BLR * (t - s)
        step_BLR[..., mask] = s
        drawn_BL = _draw(step_BLR)
        next_BL = torch.where(ids_BL == mask, drawn_BL, ids_BL)
        if not torch.equal(next_BL, ids_BL) or denoiser.config.time_conditioning:
            p_BLR = None
        ids_BL = next_BL
    likeliest_BL = _prediction(denoiser, ids_BL, LEAST).argmax(dim=-1)
    return torch.where(ids_BL == mask, likeliest_BL, ids_BL), evaluations + 1


def _prediction(denoiser: Network, ids_BL: Tensor, t: float) -> Tensor:
    """p(x_0 | x_t) at every position, ``[B, L, R]`` float32; visible tokens carry over."""
    time_B = torch.full((len(ids_BL),), t, device=ids_BL.device)
    log_p_BLR = reference.log_prediction(
        reference.logits(denoiser, ids_BL, time_B), ids_BL, denoiser.config.mask
    )
    return log_p_BLR.exp()


def _draw(p_BLR: Tensor) -> Tensor:
    """The Gumbel-max trick on probabilities that need not sum to 1."""
    return (p_BLR / -torch.rand_like(p_BLR).clamp(min=1e-10).log()).argmax(dim=-1)
