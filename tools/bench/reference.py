"""A plain MDLM training step, the yardstick of `python -m tools.bench train`.

It does what the public code of Sahoo et al. (2024) does (github.com/kuleshov-group/mdlm):
times and masks from the stepping generator, the head at every position, a softmax over
the vocabulary at every position, then the log-probabilities of the targets, times the
mask and the weight. It is written from the papers' equations over the same parameters as
ours, so that it also checks :mod:`model.networks.layers` and :mod:`model.objectives.mdlm`; nothing
in it is slower than it need be. Only what MDLM's own configuration uses is here:
LayerNorm, GELU, an untied head, a [MASK] of our own, no padding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.base import Network

EPS = 1e-3
"""MDLM's noise eps and sampling eps: alpha(1), and the least time."""


def corrupt(ids_BL: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """``(x_t [B, L], t [B])``: one time a sample, spread over the batch, then the masks."""
    num = ids_BL.shape[0]
    bins = torch.arange(num, device=ids_BL.device) / num
    t_B = EPS + (1 - EPS) * (torch.rand(num, device=ids_BL.device) / num + bins)
    move_BL = torch.rand(ids_BL.shape, device=ids_BL.device) < (1 - EPS) * t_B[:, None]
    return torch.where(move_BL, mask, ids_BL), t_B


def mean_loss(
    denoiser: Network, noisy_BL: Tensor, t_B: Tensor, ids_BL: Tensor, *, carry_over: bool
) -> Tensor:
    """The continuous-time bound (eq. 10) in nats a token, averaged over all tokens.

    ``carry_over`` also rewrites the distribution at visible positions into a one-hot, as
    the public code does; the mask multiplies those positions by zero either way.
    """
    mask = denoiser.config.mask
    logits_BLR = logits(denoiser, noisy_BL, t_B).float()
    visible_BL = noisy_BL != mask
    if carry_over:
        log_p_BLR = log_prediction(logits_BLR, noisy_BL, mask)
    else:
        log_p_BLR = F.log_softmax(logits_BLR, dim=-1)
    log_p_BL = log_p_BLR.gather(-1, ids_BL[..., None]).squeeze(-1)
    sigma_B = -torch.log1p(-(1 - EPS) * t_B)
    dsigma_B = (1 - EPS) / (1 - (1 - EPS) * t_B)
    weight_B1 = (dsigma_B / torch.expm1(sigma_B))[:, None]
    return -(log_p_BL * ~visible_BL * weight_B1).mean()


def log_prediction(logits_BLR: Tensor, noisy_BL: Tensor, mask: int) -> Tensor:
    """log p(x_0 | x_t) ``[B, L, R]`` float32, in which visible tokens are certain (SUBS)."""
    logits_BLR = logits_BLR.float()
    visible_BL = noisy_BL != mask
    log_p_BLR = logits_BLR - logits_BLR.logsumexp(dim=-1, keepdim=True)
    log_p_BLR[visible_BL] = -1e6
    log_p_BLR[visible_BL, noisy_BL[visible_BL]] = 0.0
    return log_p_BLR


def logits(denoiser: Network, noisy_BL: Tensor, t_B: Tensor) -> Tensor:
    """Logits ``[B, L, R]`` at every position; [MASK] and padding rows carry -1e6."""
    config = denoiser.config
    p: dict[str, Tensor] = dict(denoiser.named_parameters())
    x = F.embedding(noisy_BL, p["layers.0.tokens.weight"])
    c = _condition(p, t_B if config.time_conditioning else torch.zeros_like(t_B))
    cos, sin = _rotary(noisy_BL.shape[1], config.head_width, config.rotary_base, x)
    for number in range(1, config.num_layers + 1):
        layer = {
            name.removeprefix(f"layers.{number}."): value
            for name, value in p.items()
            if name.startswith(f"layers.{number}.")
        }
        x = _block(layer, x, c, cos, sin, config.num_heads)
    last = f"layers.{config.num_layers + 1}."
    shift, scale = _modulation(p[last + "modulation.weight"], p[last + "modulation.bias"], c, 2)
    x = F.layer_norm(x, x.shape[-1:], p[last + "norm.weight"]) * (1 + scale) + shift
    out = F.linear(x, p[last + "head.weight"], p[last + "head.bias"])
    out[..., config.vocab_size :] += -1e6
    return out


def _condition(p: dict[str, Tensor], t_B: Tensor) -> Tensor:
    """Sinusoidal features of the level through a two-layer MLP (DiT): ``[B, C]``."""
    half = p["layers.0.time_in.weight"].shape[1] // 2
    step = torch.arange(half, device=t_B.device) / half
    angle = 1000.0 * t_B[:, None] * torch.exp(-math.log(10_000.0) * step)
    features = torch.cat([angle.cos(), angle.sin()], dim=-1).to(p["layers.0.time_in.weight"])
    hidden = F.silu(F.linear(features, p["layers.0.time_in.weight"], p["layers.0.time_in.bias"]))
    return F.silu(F.linear(hidden, p["layers.0.time_out.weight"], p["layers.0.time_out.bias"]))


def _rotary(length: int, width: int, base: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[L, 1, E]`` (Su et al. 2021, eq. 34, in halves)."""
    frequency = base ** (-torch.arange(0, width, 2, device=like.device).double() / width)
    angle = torch.arange(length, device=like.device).double()[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)[:, None, :]
    return angle.cos().to(like), angle.sin().to(like)


def _modulation(weight: Tensor, bias: Tensor, c: Tensor, num: int) -> tuple[Tensor, ...]:
    return F.linear(c, weight, bias)[:, None, :].chunk(num, dim=-1)


def _block(
    p: dict[str, Tensor], x: Tensor, c: Tensor, cos: Tensor, sin: Tensor, num_heads: int
) -> Tensor:
    """adaLN-zero (Peebles & Xie 2023): attention, then the MLP."""
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = _modulation(
        p["modulation.weight"], p["modulation.bias"], c, 6
    )

    def turn(z: Tensor) -> Tensor:
        first, second = z.chunk(2, dim=-1)
        return z * cos + torch.cat([-second, first], dim=-1) * sin

    h = F.layer_norm(x, x.shape[-1:], p["attention_norm.weight"]) * (1 + scale_a) + shift_a
    q, k, v = (
        F.linear(h, p[f"attention.{name}.weight"]).unflatten(-1, (num_heads, -1))
        for name in ("q", "k", "v")
    )
    q, k, v = (z.transpose(1, 2) for z in (turn(q), turn(k), v))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + gate_a * F.linear(mixed, p["attention.out.weight"])

    h = F.layer_norm(x, x.shape[-1:], p["mlp_norm.weight"]) * (1 + scale_m) + shift_m
    hidden = F.gelu(F.linear(h, p["mlp.up.weight"], p["mlp.up.bias"]), approximate="tanh")
    return x + gate_m * F.linear(hidden, p["mlp.down.weight"], p["mlp.down.bias"])
