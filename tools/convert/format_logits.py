"""Layers that the formats compute their own logits with, independent of model/."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.architectures.transformer import Transformer
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors


def heads(x_BLD: Tensor, num: int) -> Tensor:
    """``[B, L, H E]`` to ``[B, H, L, E]``."""
    return x_BLD.unflatten(-1, (num, -1)).transpose(1, 2)


def rotated(x_BHLE: Tensor, base: float) -> Tensor:
    """Rotary positions in the form that turns the two halves of a head against each other."""
    length, width = x_BHLE.shape[-2:]
    rate = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), rate).repeat(1, 2)
    half = torch.cat((-x_BHLE[..., width // 2 :], x_BHLE[..., : width // 2]), dim=-1)
    return x_BHLE * angle.cos().to(x_BHLE.dtype) + half * angle.sin().to(x_BHLE.dtype)


def attend(q_BHLE: Tensor, k_BGLE: Tensor, v_BGLE: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax attention, ``[B, L, H E]``; G heads of keys and values serve H / G queries each."""
    share = q_BHLE.shape[1] // k_BGLE.shape[1]
    k, v = (x.repeat_interleave(share, dim=1) for x in (k_BGLE, v_BGLE))
    out = F.scaled_dot_product_attention(q_BHLE, k, v, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


@dataclass(frozen=True, kw_only=True)
class GatedNames:
    """Module names of a pre-norm transformer with RMSNorm and SwiGLU.

    They are written down apart from the table that renames parameters, so that a mistake in
    one of the two shows.

    Args:
        block: the prefix of a block, but for its number and a dot; the names from
            ``attention_norm`` on come after these.
    """

    embedding: str
    last_norm: str
    head: str
    block: str
    attention_norm: str
    q: str
    k: str
    v: str
    out: str
    mlp_norm: str
    gate: str
    up: str
    down: str
    q_norm: str = ""
    k_norm: str = ""


@torch.no_grad()
def gated_logits(
    source: Tensors, model: Transformer, inputs: Inputs, names: GatedNames, *, causal: bool
) -> Tensor:
    """Logits ``[B, L, ids]`` of such a transformer, one module in memory at a time."""
    source = source.double()

    def linear(x: Tensor, name: str) -> Tensor:
        bias = source.read(f"{name}.bias") if f"{name}.bias" in source.shapes else None
        return F.linear(x, source.read(f"{name}.weight"), bias)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], source.read(f"{name}.weight"), model.norm_eps)

    x = F.embedding(inputs.ids_BL, source.read(f"{names.embedding}.weight"))
    for index in range(model.num_layers):
        p = f"{names.block}{index}."
        h = norm(x, p + names.attention_norm)
        q = heads(linear(h, p + names.q), model.num_heads)
        k = heads(linear(h, p + names.k), model.kv_heads)
        v = heads(linear(h, p + names.v), model.kv_heads)
        if model.qk_norm:
            q, k = norm(q, p + names.q_norm), norm(k, p + names.k_norm)
        q, k = rotated(q, model.rotary_base), rotated(k, model.rotary_base)
        x = x + linear(attend(q, k, v, causal=causal), p + names.out)
        h = norm(x, p + names.mlp_norm)
        x = x + linear(F.silu(linear(h, p + names.gate)) * linear(h, p + names.up), p + names.down)
    return linear(norm(x, names.last_norm), names.embedding if model.tied_head else names.head)
