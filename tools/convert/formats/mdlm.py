"""The public format of MDLM (Sahoo et al. 2024), both ways.

Its DiT is ours with q, k and v in one matrix, and an embedding of exactly the ids that occur:
V, and [MASK] as the last of them, unless the tokenizer has one. Names stand behind
``backbone.`` or bare. Its network reads the total noise where it is conditioned on time. Its
state dict holds the rotary frequencies too, a buffer; the other formats' have no buffers.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import UserError
from model.architectures.dit import DiT
from model.networks.adaln import sinusoid
from model.networks.config import ModelConfig
from pretrain.config import RunConfig
from tools.convert.fit import refuse, require
from tools.convert.format import (
    Incoming,
    Options,
    Outgoing,
    check_frequencies,
    count,
    frequencies,
)
from tools.convert.format_logits import attend, heads, rotated
from tools.convert.kept_rows import Vocabulary, vocabulary
from tools.convert.parity import Inputs
from tools.convert.tensors import Shape, Tensors

PREFIX = "backbone."
EMBEDDING = "vocab_embed.embedding"
FREQUENCIES = "rotary_emb.inv_freq"
SPARE = ("inv_freq",)

EMBEDDING_LAYER = {
    "time_in.weight": "sigma_map.mlp.0.weight",
    "time_in.bias": "sigma_map.mlp.0.bias",
    "time_out.weight": "sigma_map.mlp.2.weight",
    "time_out.bias": "sigma_map.mlp.2.bias",
}
BLOCK = {
    "attention_norm.weight": "norm1.weight",
    "attention.out.weight": "attn_out.weight",
    "mlp_norm.weight": "norm2.weight",
    "mlp.up.weight": "mlp.0.weight",
    "mlp.up.bias": "mlp.0.bias",
    "mlp.down.weight": "mlp.2.weight",
    "mlp.down.bias": "mlp.2.bias",
    "modulation.weight": "adaLN_modulation.weight",
    "modulation.bias": "adaLN_modulation.bias",
}
OUTPUT_LAYER = {
    "norm.weight": "norm_final.weight",
    "modulation.weight": "adaLN_modulation.weight",
    "modulation.bias": "adaLN_modulation.bias",
}
QKV = ("q", "k", "v")


class Mdlm:
    """See the module."""

    name = "mdlm"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type, or by the name of its embedding."""
        bare = {name.removeprefix(PREFIX) for name in tensors.shapes}
        return config.get("model_type") == "mdlm" or EMBEDDING in bare

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """q, k and v apart, and rows of zeros up to a multiple of 128."""
        bare = source.renamed({name.removeprefix(PREFIX): name for name in source.shapes})
        model, ids = _model(bare, config, options)
        require(bare, shapes(model, ids.rows), spare=SPARE)
        check_frequencies(bare, model)
        read, answer = partial(_ours, bare, model, ids), partial(logits, bare, model)
        return ids.incoming(model, source.origin, read, answer, config.get("model_length"))

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """q, k and v together, without the padded rows; a tied head as a copy."""
        model = run.model
        refuse(ours.origin, _misfits(model))
        assert isinstance(model, DiT)
        held = {**shapes(model, model.num_ids), FREQUENCIES: (model.head_width // 2,)}
        written = Tensors(
            {PREFIX + name: shape for name, shape in held.items()},
            lambda name: _theirs(ours, model, name.removeprefix(PREFIX)),
            ours.origin,
        )
        config = {
            "model_type": "mdlm",
            "vocab_size": model.num_ids,
            "mask_index": model.mask,
            "hidden_dim": model.width,
            "cond_dim": model.conditioning_width,
            "n_blocks": model.num_layers,
            "n_heads": model.num_heads,
            "dropout": model.dropout,
            "time_conditioning": model.time_conditioning,
            "model_length": run.data.sequence_length,
            "return_dict": False,
        }

        def written_logits(found: Tensors, inputs: Inputs) -> Tensor:
            bare = found.renamed({name.removeprefix(PREFIX): name for name in found.shapes})
            return logits(bare, model, inputs)

        return Outgoing(config=config, tensors=written, logits=written_logits)


def shapes(model: DiT, rows: int) -> dict[str, Shape]:
    """Of every parameter, under its public name, in the order of the public code.

    Args:
        rows: of the tables.
    """
    width, hidden, condition = model.width, model.hidden_width, model.conditioning_width
    found: dict[str, Shape] = {
        EMBEDDING: (rows, width),
        "sigma_map.mlp.0.weight": (condition, 256),
        "sigma_map.mlp.0.bias": (condition,),
        "sigma_map.mlp.2.weight": (condition, condition),
        "sigma_map.mlp.2.bias": (condition,),
    }
    for index in range(model.num_layers):
        block: dict[str, Shape] = {
            "norm1.weight": (width,),
            "attn_qkv.weight": (3 * width, width),
            "attn_out.weight": (width, width),
            "norm2.weight": (width,),
            "mlp.0.weight": (hidden, width),
            "mlp.0.bias": (hidden,),
            "mlp.2.weight": (width, hidden),
            "mlp.2.bias": (width,),
            "adaLN_modulation.weight": (6 * width, condition),
            "adaLN_modulation.bias": (6 * width,),
        }
        found |= {f"blocks.{index}.{name}": shape for name, shape in block.items()}
    return found | {
        "output_layer.norm_final.weight": (width,),
        "output_layer.linear.weight": (rows, width),
        "output_layer.linear.bias": (rows,),
        "output_layer.adaLN_modulation.weight": (2 * width, condition),
        "output_layer.adaLN_modulation.bias": (2 * width,),
    }


def _model(bare: Tensors, config: Mapping[str, Any], options: Options) -> tuple[DiT, Vocabulary]:
    """The denoiser whose weights these are, by their shapes, the configuration and the options."""
    try:
        rows, width = bare.shapes[EMBEDDING]
        hidden = bare.shapes["blocks.0.mlp.0.weight"][0]
        condition = bare.shapes["sigma_map.mlp.0.weight"][0]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{bare.origin} is no MDLM: {error} is missing or of another shape"
        ) from error
    num_heads = config.get("n_heads") or options.heads
    if FREQUENCIES in bare.shapes:
        num_heads = num_heads or width // (2 * bare.shapes[FREQUENCIES][0])
    if not num_heads:
        raise UserError(f"{bare.origin} does not say how many heads it has: add --heads N")
    ids = vocabulary(rows, config.get("mask_index"), options, bare.origin)
    model = DiT(
        vocab_size=ids.vocab_size,
        mask_id=ids.mask_id,
        width=width,
        num_layers=count(bare.shapes, "blocks."),
        num_heads=num_heads,
        mlp_width=None if hidden == 4 * width else hidden,
        conditioning_width=condition,
        time_conditioning=bool(config.get("time_conditioning", options.time_conditioning)),
        time_input="noise",
        dropout=float(config.get("dropout", 0.0)),
    )
    return model, ids


def _misfits(model: ModelConfig) -> list[str]:
    """Why a denoiser has no place in this format."""
    if not isinstance(model, DiT):
        return [f"name is {model.architecture}, and MDLM is a dit"]
    plain: dict[str, Any] = {"mlp": "gelu", "norm": "layernorm", "gelu": "tanh"}
    plain |= {"qkv_bias": False, "attention_bias": False, "qk_norm": False, "norm_eps": 1e-5}
    plain |= {"rotary_base": 10_000.0, "attention": "full", "shifted_output": False}
    found = [
        f"{name} is {getattr(model, name)}, and MDLM has {value}"
        for name, value in plain.items()
        if getattr(model, name) != value
    ]
    if (model.kv_heads, model.attention_width) != (model.num_heads, model.width):
        found.append("MDLM has as many key heads as queries, each of D / H")
    if model.time_conditioning and model.time_input != "noise":
        found.append("time_input is level, and a time-conditioned MDLM reads the total noise")
    return found


def _ours(bare: Tensors, model: DiT, ids: Vocabulary, name: str) -> Tensor:
    """A parameter of ours, out of theirs."""
    _, index, rest = name.split(".", 2)
    number, last = int(index), model.num_layers + 1
    if number == 0:
        if rest == "tokens.weight":
            return ids.taken(bare.read(EMBEDDING), model.num_rows)
        return bare.read(EMBEDDING_LAYER[rest])
    if number == last:
        if rest.startswith("head."):
            return ids.taken(bare.read(rest.replace("head", "output_layer.linear")), model.num_rows)
        return bare.read(f"output_layer.{OUTPUT_LAYER[rest]}")
    found = re.fullmatch(r"attention\.([qkv])\.weight", rest)
    if found:
        whole = bare.read(f"blocks.{number - 1}.attn_qkv.weight")
        return whole.chunk(3)[QKV.index(found[1])].clone()
    return bare.read(f"blocks.{number - 1}.{BLOCK[rest]}")


def _theirs(ours: Tensors, model: DiT, name: str) -> Tensor:
    """A parameter of theirs, out of ours."""
    last = model.num_layers + 1
    if name == FREQUENCIES:
        return frequencies(model.head_width, model.rotary_base)
    if name == EMBEDDING:
        return ours.read("layers.0.tokens.weight")[: model.num_ids].clone()
    if name.startswith("sigma_map."):
        return ours.read(f"layers.0.{_inverse(EMBEDDING_LAYER)[name]}")
    if name.startswith("output_layer.linear."):
        kind = name.rpartition(".")[2]
        if kind == "bias" and not model.has_head_bias:
            return torch.zeros(model.num_ids)
        tied = model.tied_head and kind == "weight"
        place = "layers.0.tokens.weight" if tied else f"layers.{last}.head.{kind}"
        return ours.read(place)[: model.num_ids].clone()
    if name.startswith("output_layer."):
        return ours.read(f"layers.{last}.{_inverse(OUTPUT_LAYER)[name.partition('.')[2]]}")
    _, index, rest = name.split(".", 2)
    layer = f"layers.{int(index) + 1}"
    if rest == "attn_qkv.weight":
        return torch.cat([ours.read(f"{layer}.attention.{part}.weight") for part in QKV])
    return ours.read(f"{layer}.{_inverse(BLOCK)[rest]}")


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: own for own, theirs in names.items()}


@torch.no_grad()
def logits(bare: Tensors, model: DiT, inputs: Inputs) -> Tensor:
    """Logits ``[B, L, ids]`` of these weights, computed as MDLM does: one matrix for q, k and v."""
    read = bare.double().read
    level = inputs.level_B1 if model.time_conditioning else torch.zeros_like(inputs.level_B1)
    features = sinusoid(-torch.log1p(-0.999 * level)).double()
    c = F.linear(features, read("sigma_map.mlp.0.weight"), read("sigma_map.mlp.0.bias"))
    c = F.linear(F.silu(c), read("sigma_map.mlp.2.weight"), read("sigma_map.mlp.2.bias"))
    c = F.silu(c)
    x = F.embedding(inputs.ids_BL, read(EMBEDDING))

    def modulated(x: Tensor, norm: str, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], read(norm)) * (1 + scale) + shift

    for index in range(model.num_layers):
        p = f"blocks.{index}."
        m = F.linear(c, read(p + "adaLN_modulation.weight"), read(p + "adaLN_modulation.bias"))
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = m.chunk(6, dim=-1)
        h = modulated(x, p + "norm1.weight", shift, scale)
        q, k, v = F.linear(h, read(p + "attn_qkv.weight")).chunk(3, dim=-1)
        q, k, v = (heads(part, model.num_heads) for part in (q, k, v))
        attended = attend(rotated(q, model.rotary_base), rotated(k, model.rotary_base), v)
        x = x + gate * F.linear(attended, read(p + "attn_out.weight"))
        h = modulated(x, p + "norm2.weight", shift_mlp, scale_mlp)
        h = F.linear(h, read(p + "mlp.0.weight"), read(p + "mlp.0.bias"))
        h = F.gelu(h, approximate="tanh")
        x = x + gate_mlp * F.linear(h, read(p + "mlp.2.weight"), read(p + "mlp.2.bias"))
    p = "output_layer."
    m = F.linear(c, read(p + "adaLN_modulation.weight"), read(p + "adaLN_modulation.bias"))
    shift, scale = m.chunk(2, dim=-1)
    x = modulated(x, p + "norm_final.weight", shift, scale)
    return F.linear(x, read(p + "linear.weight"), read(p + "linear.bias"))
