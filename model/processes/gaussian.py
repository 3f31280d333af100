"""Gaussian diffusion of embeddings: noise schedules, DDPM and DDIM steps, x0/eps/v targets.

x_i = sqrt(abar_i) x_0 + sqrt(1 - abar_i) eps, for i = 0 .. T-1 (Ho et al. 2020, DDPM, eq. 4);
index 0 already has one step of noise, and index -1 is the clean x_0, abar_{-1} = 1. All
coefficients are float64.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["sqrt", "cosine", "linear"]
Parameterisation = Literal["x0", "eps", "v"]

_MAX_BETA = 0.999


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def betas(schedule: ScheduleName, num_steps: int) -> Tensor:
    """Noise schedule beta_i, ``[T]`` float64.

    ``sqrt`` (Li et al. 2022, Diffusion-LM, appendix A) and ``cosine`` (Nichol & Dhariwal
    2021, eq. 17) follow from a(u) by beta_i = min(1 - a((i+1)/T) / a(i/T), 0.999); ``linear``
    is Ho et al.'s, scaled to T steps. On the CPU whatever the default device: it is cached.
    """
    if schedule == "linear":
        scale = 1000 / num_steps
        return torch.linspace(
            1e-4 * scale, 0.02 * scale, num_steps, dtype=torch.float64, device="cpu"
        )
    u = torch.arange(num_steps + 1, dtype=torch.float64, device="cpu") / num_steps
    if schedule == "sqrt":
        a = 1 - torch.sqrt(u + 1e-4)
    else:
        a = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - a[1:] / a[:-1]).clamp(max=_MAX_BETA)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _alpha_bars(schedule: ScheduleName, num_steps: int) -> Tensor:
    """Cumulative products abar ``[T + 1]``, for indices -1 to T-1."""
    abar = torch.cumprod(1 - betas(schedule, num_steps), dim=0)
    return torch.cat([abar.new_ones(1), abar])


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A Gaussian process with a noise schedule of T steps."""

    schedule: ScheduleName
    num_steps: int

    def abar(self, index: Tensor) -> Tensor:
        """abar, the signal's share of the variance at each index (-1 is clean), float64."""
        return _alpha_bars(self.schedule, self.num_steps).to(index.device)[index + 1]

    @property
    def start_std(self) -> float:
        """std0 = sqrt(1 - abar_0), the noise added to clean embeddings for x_0 (Diffusion-LM)."""
        return math.sqrt(1 - float(self.abar(torch.tensor(0, device="cpu"))))

    def level(self, index: Tensor) -> Tensor:
        """Noise level (i + 1) / T of an index: 0 is clean, 1 the prior."""
        return (index + 1) / self.num_steps

    def index(self, level: Tensor) -> Tensor:
        """The index of a noise level, -1 for clean."""
        return torch.round(level * self.num_steps).long() - 1


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """DDPM posterior q(x_j | x_i, x_0) = N(of_x x_i + of_x0 x_0, variance), for j < i.

    Args:
        small: variance of the posterior; large: variance of q(x_i | x_j), for the case that
            x_0 is almost unknown (Ho et al. 2020, section 3.2).
    """

    of_x: Tensor
    of_x0: Tensor
    small: Tensor
    large: Tensor


def posterior(abar_i: Tensor, abar_j: Tensor) -> Posterior:
    """The posterior of a step over any number of indices; j = i is the identity.

    Args:
        abar_i, abar_j: float64, of the noisier and the cleaner index.
    """
    ratio = abar_i / abar_j
    # Without noise at index i there is none at j either: identity instead of 0 / 0.
    clean, noise_i = abar_i == 1.0, torch.where(abar_i == 1.0, 1.0, 1 - abar_i)
    return Posterior(
        of_x=torch.where(clean, 1.0, ratio.sqrt() * (1 - abar_j) / noise_i),
        of_x0=abar_j.sqrt() * (1 - ratio) / noise_i,
        small=(1 - ratio) * (1 - abar_j) / noise_i,
        large=1 - ratio,
    )


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """DDIM step: x_j = of_x0 x_0 + of_eps eps + sqrt(variance) noise."""

    of_x0: Tensor
    of_eps: Tensor
    variance: Tensor


def implicit(abar_i: Tensor, abar_j: Tensor, eta: float) -> Implicit:
    """DDIM coefficients (Song et al. 2021, eq. 12), sigma^2 = eta^2 times posterior variance."""
    variance = eta**2 * posterior(abar_i, abar_j).small
    return Implicit(
        of_x0=abar_j.sqrt(),
        of_eps=(1 - abar_j - variance).clamp(min=0).sqrt(),
        variance=variance,
    )


def target(kind: Parameterisation, x0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """The network's target: x0, eps, or v as in Salimans & Ho 2022, appendix D."""
    if kind == "x0":
        return x0
    if kind == "eps":
        return eps
    return abar.sqrt() * eps - (1 - abar).sqrt() * x0


def to_x0(kind: Parameterisation, output: Tensor, x: Tensor, abar: Tensor) -> Tensor:
    """Convert a network output at noisy embeddings ``x`` to clean embeddings."""
    if kind == "x0":
        return output
    if kind == "eps":
        return (x - (1 - abar).sqrt() * output) / abar.sqrt()
    return abar.sqrt() * x - (1 - abar).sqrt() * output


def to_eps(x0: Tensor, x: Tensor, abar: Tensor) -> Tensor:
    """The noise eps in ``x`` if its clean embeddings are ``x0``."""
    return (x - abar.sqrt() * x0) / (1 - abar).sqrt()
