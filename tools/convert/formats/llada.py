"""LLaDA's format (Nie et al. 2025), both ways: Llama's architecture under OLMo's names.

It is bidirectional from the start, sees no noise level, and its vocabulary holds [MASK].
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from configs.errors import UserError
from model.architectures.transformer import Transformer
from model.networks.config import ModelConfig
from pretrain.config import RunConfig
from tools.convert.fit import parameter_shapes, refuse, require, settings
from tools.convert.format import Incoming, Options, Outgoing, check_frequencies
from tools.convert.format_logits import GatedNames, gated_logits
from tools.convert.kept_rows import Vocabulary, vocabulary
from tools.convert.parity import Inputs
from tools.convert.tensors import Shape, Tensors

ROOT = "model.transformer."
EMBEDDING, HEAD = ROOT + "wte.weight", ROOT + "ff_out.weight"

BLOCK = {
    "attention_norm.weight": "attn_norm.weight",
    "attention.q.weight": "q_proj.weight",
    "attention.q.bias": "q_proj.bias",
    "attention.k.weight": "k_proj.weight",
    "attention.k.bias": "k_proj.bias",
    "attention.v.weight": "v_proj.weight",
    "attention.v.bias": "v_proj.bias",
    "attention.out.weight": "attn_out.weight",
    "mlp_norm.weight": "ff_norm.weight",
    "mlp.gate.weight": "ff_proj.weight",
    "mlp.up.weight": "up_proj.weight",
    "mlp.down.weight": "ff_out.weight",
}
FIXED = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "alibi": False,
    "include_bias": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
}
NAMES = GatedNames(
    embedding=ROOT + "wte",
    last_norm=ROOT + "ln_f",
    head=ROOT + "ff_out",
    block=ROOT + "blocks.",
    attention_norm="attn_norm",
    q="q_proj",
    k="k_proj",
    v="v_proj",
    out="attn_out",
    mlp_norm="ff_norm",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
)


class Llada:
    """See the module."""

    name = "llada"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type."""
        return bool(config.get("model_type") == "llada")

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """Names changed."""
        model, ids = _model(source, config, options)
        require(source, _wanted(model, ids.rows), spare=("inv_freq",))
        check_frequencies(source, model)

        def read(name: str) -> Tensor:
            theirs = _theirs(name, model)
            value = source.read(theirs)
            return ids.taken(value, model.num_rows) if theirs in (EMBEDDING, HEAD) else value

        length = config.get("max_sequence_length")
        return ids.incoming(model, source.origin, read, _logits(source, model), length)

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """Names changed, and the padded rows left out."""
        model = run.model
        refuse(ours.origin, _misfits(model))
        assert isinstance(model, Transformer)
        held = {_theirs(name, model): name for name in ours.shapes}

        def read(name: str) -> Tensor:
            value = ours.read(held[name])
            return value[: model.num_ids].clone() if name in (EMBEDDING, HEAD) else value

        config = {
            "model_type": "llada",
            "architectures": ["LLaDAModelLM"],
            **FIXED,
            "d_model": model.width,
            "n_layers": model.num_layers,
            "n_heads": model.num_heads,
            "n_kv_heads": model.kv_heads,
            "mlp_hidden_size": model.hidden_width,
            "vocab_size": model.num_ids,
            "embedding_size": model.num_ids,
            "mask_token_id": model.mask,
            "max_sequence_length": run.data.sequence_length,
            "rms_norm_eps": model.norm_eps,
            "rope_theta": model.rotary_base,
            "include_qkv_bias": model.qkv_bias,
            "weight_tying": model.tied_head,
        }
        return Outgoing(
            config=config,
            tensors=Tensors(_wanted(model, model.num_ids), read, ours.origin),
            logits=lambda written, inputs: _logits(written, model)(inputs),
        )


def _logits(source: Tensors, model: Transformer) -> Callable[[Inputs], Tensor]:
    return lambda inputs: gated_logits(source, model, inputs, NAMES, causal=False)


def _model(
    source: Tensors, config: Mapping[str, Any], options: Options
) -> tuple[Transformer, Vocabulary]:
    names = ("d_model", "n_layers", "n_heads", "mlp_hidden_size")
    width, num_layers, num_heads, hidden = settings(config, names, source.origin)
    refuse(
        source.origin,
        [
            f"{name} is {config[name]}, and only {value} is known"
            for name, value in FIXED.items()
            if config.get(name, value) != value
        ],
    )
    if EMBEDDING not in source.shapes:
        raise UserError(f"{source.origin} does not fit:\n  {EMBEDDING} is missing")
    mask = config.get("mask_token_id")
    if mask is None and options.mask_id is None and options.tokenizer_mask is None:
        raise UserError(f"{source.origin} does not say which id is [MASK]: add --mask-id N")
    ids = vocabulary(source.shapes[EMBEDDING][0], mask, options, source.origin)
    model = Transformer(
        vocab_size=ids.vocab_size,
        mask_id=ids.mask_id,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=config.get("n_kv_heads") or num_heads,
        mlp="swiglu",
        mlp_width=hidden,
        norm="rmsnorm",
        norm_eps=config.get("rms_norm_eps", 1e-5),
        rotary_base=float(config.get("rope_theta", 10_000.0)),
        qkv_bias=bool(config.get("include_qkv_bias", False)),
        tied_head=bool(config.get("weight_tying", False)),
        head_bias=False,
    )
    return model, ids


def _misfits(model: ModelConfig) -> list[str]:
    """Why a denoiser has no place in this format."""
    if not isinstance(model, Transformer):
        return [f"name is {model.architecture}, and LLaDA is a transformer"]
    plain: dict[str, Any] = {"norm_first": True, "mlp": "swiglu", "norm": "rmsnorm"}
    plain |= {"has_head_bias": False, "attention_bias": False, "qk_norm": False}
    plain |= {"num_positions": None, "attention": "full", "shifted_output": False}
    found = [
        f"{name} is {getattr(model, name)}, and LLaDA has {value}"
        for name, value in plain.items()
        if getattr(model, name) != value
    ]
    if model.attention_width != model.width:
        found.append(
            f"{model.num_heads} heads of {model.head_width} are not its width {model.width}"
        )
    return found


def _wanted(model: Transformer, rows: int) -> dict[str, Shape]:
    found = {_theirs(name, model): shape for name, shape in parameter_shapes(model).items()}
    for name in found.keys() & {EMBEDDING, HEAD}:
        found[name] = (rows, model.width)
    return found


def _theirs(name: str, model: Transformer) -> str:
    _, index, rest = name.split(".", 2)
    number, last = int(index), model.num_layers + 1
    if number == 0:
        return EMBEDDING
    if number == last:
        return {"norm.weight": ROOT + "ln_f.weight", "head.weight": HEAD}[rest]
    return f"{ROOT}blocks.{number - 1}.{BLOCK[rest]}"
