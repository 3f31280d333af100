"""Causal models of the Llama family (Llama, Qwen2, Qwen3) into a bidirectional denoiser.

Touvron et al. 2023 (pre-norm, RMSNorm, SwiGLU, rotary positions), Ainslie et al. 2023 (shared
keys and values); Qwen2 has biases of q, k and v, Qwen3 norms of q and k. What a causal model
needs to become a masked denoiser is Gong et al. 2025, section 3: a [MASK], whose row of the
embedding starts as the mean of all others, attention to both sides, and its predictions
read one position further.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from model.architectures.transformer import Transformer
from pretrain.config import RunConfig
from tools.convert.fit import parameter_shapes, refuse, require, settings
from tools.convert.format import (
    Incoming,
    Options,
    Outgoing,
    check_frequencies,
    one_way,
    padded,
    same_rows,
)
from tools.convert.format_logits import GatedNames, gated_logits
from tools.convert.tensors import Tensors

MODEL_TYPES = ("llama", "qwen2", "qwen3")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q.weight": "self_attn.q_proj.weight",
    "attention.q.bias": "self_attn.q_proj.bias",
    "attention.k.weight": "self_attn.k_proj.weight",
    "attention.k.bias": "self_attn.k_proj.bias",
    "attention.v.weight": "self_attn.v_proj.weight",
    "attention.v.bias": "self_attn.v_proj.bias",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "attention.out.bias": "self_attn.o_proj.bias",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
NAMES = GatedNames(
    embedding="model.embed_tokens",
    last_norm="model.norm",
    head="lm_head",
    block="model.layers.",
    attention_norm="input_layernorm",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    out="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
)


class Llama:
    """See the module."""

    name = "llama"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type."""
        return config.get("model_type") in MODEL_TYPES

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """Names changed, and a row for [MASK]."""
        if config.get("model_type") not in MODEL_TYPES:
            raise UserError(f"{source.origin}: its config.json names none of {MODEL_TYPES}")
        model, num_ids = _model(source, config, options)
        wanted = {_theirs(name, model): shape for name, shape in parameter_shapes(model).items()}
        for name in wanted.keys() & {EMBEDDING, HEAD}:
            wanted[name] = (source.shapes[EMBEDDING][0], model.width)
        spare = ("inv_freq", HEAD) if model.tied_head else ("inv_freq",)
        require(source, wanted, spare=spare)
        check_frequencies(source, model)
        return Incoming(
            model=model,
            tensors=Tensors(
                parameter_shapes(model), lambda name: _read(source, model, name), source.origin
            ),
            compared_as=replace(
                model, attention="causal", causal_annealing_steps=0, shifted_output=False
            ),
            num_ids=num_ids,
            logits=lambda inputs: gated_logits(source, model, inputs, NAMES, causal=True)[
                ..., :num_ids
            ],
            length=config.get("max_position_embeddings"),
            left_out=source.shapes[EMBEDDING][0] - num_ids,
        )

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """A bidirectional denoiser is no causal model."""
        raise one_way(self.name)


def _model(source: Tensors, config: Mapping[str, Any], options: Options) -> tuple[Transformer, int]:
    """The denoiser, and how many ids the source knows."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    width, num_layers, num_heads, hidden = settings(config, names, source.origin)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    refuse(
        source.origin,
        [
            *([f"rope_type {kind}; only default positions are known"] if kind != "default" else []),
            *(["mlp_bias is on"] if config.get("mlp_bias") else []),
            *(["use_sliding_window is on"] if config.get("use_sliding_window") else []),
            *(
                [f"hidden_act {config['hidden_act']}, not silu"]
                if config.get("hidden_act", "silu") != "silu"
                else []
            ),
        ],
    )
    if EMBEDDING not in source.shapes:
        raise UserError(f"{source.origin} does not fit:\n  {EMBEDDING} is missing")
    rows = source.shapes[EMBEDDING][0]
    num_ids = options.vocab_size or rows
    if num_ids > rows:
        raise UserError(
            f"vocabulary mismatch: the tokenizer has {num_ids} ids, {source.origin} {rows} rows"
        )
    mask_id = options.tokenizer_mask if options.mask_id is None else options.mask_id
    if options.mask_id is not None and not 0 <= options.mask_id < num_ids:
        raise UserError(f"--mask-id {options.mask_id} is no id of a vocabulary of {num_ids}")
    first = "model.layers.0.self_attn."
    model = Transformer(
        vocab_size=num_ids,
        mask_id=mask_id,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=config.get("num_key_value_heads") or num_heads,
        head_size=config.get("head_dim") or width // num_heads,
        mlp="swiglu",
        mlp_width=hidden,
        norm="rmsnorm",
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rotary_base=float(rope.get("rope_theta") or config.get("rope_theta", 10_000.0)),
        qkv_bias=first + "q_proj.bias" in source.shapes,
        attention_bias=first + "o_proj.bias" in source.shapes,
        qk_norm=first + "q_norm.weight" in source.shapes,
        tied_head=_is_tied(source, config),
        head_bias=False,
        hide_padding=True,
        shifted_output=options.shifted_output,
        causal_annealing_steps=options.annealing_steps,
    )
    return model, num_ids


def _is_tied(source: Tensors, config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding; UserError where the source contradicts itself."""
    if HEAD not in source.shapes:
        if config.get("tie_word_embeddings") is False:
            raise UserError(
                f"{source.origin} does not fit:\n  {HEAD} is missing, though the head is not tied"
            )
        return True
    if not config.get("tie_word_embeddings", False):
        return False
    if not same_rows(source, EMBEDDING, HEAD):
        raise UserError(
            f"{source.origin}: tie_word_embeddings is on, but {HEAD} is not {EMBEDDING}; set it "
            "to false in config.json if the head has weights of its own"
        )
    return True


def _theirs(name: str, model: Transformer) -> str:
    _, index, rest = name.split(".", 2)
    number, last = int(index), model.num_layers + 1
    if number == 0:
        return EMBEDDING
    if number == last:
        return {"norm.weight": "model.norm.weight", "head.weight": HEAD}[rest]
    return f"model.layers.{number - 1}.{BLOCK[rest]}"


def _read(source: Tensors, model: Transformer, name: str) -> Tensor:
    theirs = _theirs(name, model)
    value = source.read(theirs)
    if theirs not in (EMBEDDING, HEAD):
        return value
    value = value[: model.vocab_size]
    found = padded(value, model.num_rows)
    if theirs == EMBEDDING and model.mask_id is None:
        sums = [part.double().sum(dim=0) for part in value.split(4096)]
        found[model.mask] = torch.stack(sums).sum(dim=0) / len(value)
    return found
