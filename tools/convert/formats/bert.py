"""BertForMaskedLM (Devlin et al. 2019) into the denoiser, to start DiffusionBERT (He et al. 2023).

Its segment embedding of the first segment is added to the learned positions, since a denoiser
has one segment. The pooler and the next-sentence head are left behind.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import UserError
from model.architectures.transformer import Transformer
from pretrain.config import RunConfig
from tools.convert.fit import parameter_shapes, refuse, require, settings
from tools.convert.format import Incoming, Options, Outgoing, one_way, same_rows
from tools.convert.format_logits import attend, heads
from tools.convert.kept_rows import Vocabulary, vocabulary
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors, json_file

EMBEDDINGS = "bert.embeddings."
WORDS = EMBEDDINGS + "word_embeddings.weight"
POSITIONS = EMBEDDINGS + "position_embeddings.weight"
SEGMENTS = EMBEDDINGS + "token_type_embeddings.weight"
HEAD, HEAD_BIAS = "cls.predictions.decoder.weight", "cls.predictions.bias"
SPARE = (
    "position_ids",
    "bert.pooler.dense.weight",
    "bert.pooler.dense.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
    "cls.predictions.decoder.bias",
    HEAD,
)
GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

EMBEDDING_LAYER = {
    "tokens": "word_embeddings",
    "positions": "position_embeddings",
    "norm": "LayerNorm",
}
BLOCK = {
    "attention.q": "attention.self.query",
    "attention.k": "attention.self.key",
    "attention.v": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
OUTPUT_LAYER = {
    "transform": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
}


class Bert:
    """See the module."""

    name = "bert"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type."""
        return bool(config.get("model_type") == "bert")

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """Names changed, and the first segment's vector added to every position's."""
        source = _without_old_names(source)
        model, ids = _model(source, config, options)
        wanted = {_theirs(name, model): shape for name, shape in parameter_shapes(model).items()}
        wanted[WORDS] = (ids.rows, model.width)
        wanted[HEAD_BIAS] = (ids.rows,)
        wanted[SEGMENTS] = (source.shapes.get(SEGMENTS, (2,))[0], model.width)
        require(source, wanted, spare=SPARE)
        if HEAD in source.shapes and not same_rows(source, WORDS, HEAD):
            raise UserError(f"{source.origin}: {HEAD} is not tied to {WORDS}, as BERT's is")
        return ids.incoming(
            model,
            source.origin,
            partial(_read, source, model, ids),
            partial(logits, source, model),
            length=model.num_positions,
        )

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """Not asked for by anybody yet."""
        raise one_way(self.name)


def _without_old_names(source: Tensors) -> Tensors:
    """The first release called a norm's weight and bias gamma and beta."""
    new = {"gamma": "weight", "beta": "bias"}
    return source.renamed(
        {re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda m: new[m[0]], n): n for n in source.shapes}
    )


def _model(
    source: Tensors, config: Mapping[str, Any], options: Options
) -> tuple[Transformer, Vocabulary]:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes = ("intermediate_size", "max_position_embeddings")
    found = settings(config, names + sizes, source.origin)
    vocab_size, width, num_layers, num_heads, hidden, num_positions = found
    act, kind = config.get("hidden_act", "gelu"), config.get("position_embedding_type", "absolute")
    refuse(
        source.origin,
        [
            *([f"hidden_act {act}; known are {', '.join(GELU)}"] if act not in GELU else []),
            *([f"position_embedding_type {kind}, not absolute"] if kind != "absolute" else []),
            *(["is_decoder is on"] if config.get("is_decoder") else []),
        ],
    )
    mask = _mask_of_tokenizer(Path(source.origin)) if options.mask_id is None else options.mask_id
    mask = options.tokenizer_mask if mask is None else mask
    if mask is None or not 0 <= mask < vocab_size:
        raise UserError(
            f"{source.origin} does not say which id is [MASK]: add --mask-id N, an id below "
            f"{vocab_size}"
        )
    ids = vocabulary(vocab_size, mask, options, source.origin)
    if options.vocab_size is None:  # its tokenizer has all of them, [MASK] too
        ids = replace(ids, vocab_size=vocab_size)
    model = Transformer(
        width=width,
        vocab_size=ids.vocab_size,
        mask_id=ids.mask_id,
        num_layers=num_layers,
        num_heads=num_heads,
        mlp_width=hidden,
        gelu="erf" if GELU[act] == "erf" else "tanh",
        norm_first=False,
        qkv_bias=True,
        attention_bias=True,
        norm_bias=True,
        norm_eps=config.get("layer_norm_eps", 1e-12),
        num_positions=num_positions,
        tied_head=True,
        head_bias=True,
        hide_padding=True,
        dropout=float(config.get("hidden_dropout_prob", 0.0)),
    )
    return model, ids


def _mask_of_tokenizer(folder: Path) -> int | None:
    """The id of [MASK] by the tokenizer's files, if there are such."""
    words = folder / "vocab.txt"
    if words.exists():
        try:
            lines = words.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise UserError(f"{words} cannot be read: {error}") from error
        return lines.index("[MASK]") if "[MASK]" in lines else None
    if not (folder / "tokenizer.json").exists():
        return None
    tokens = json_file(folder / "tokenizer.json").get("added_tokens")
    for token in tokens if isinstance(tokens, list) else []:
        if isinstance(token, dict) and token.get("content") == "[MASK]":
            index = token.get("id")
            return index if isinstance(index, int) else None
    return None


def _theirs(name: str, model: Transformer) -> str:
    _, index, rest = name.split(".", 2)
    owner, _, kind = rest.rpartition(".")
    number, last = int(index), model.num_layers + 1
    if number == 0:
        return f"{EMBEDDINGS}{EMBEDDING_LAYER[owner]}.{kind}"
    if number == last:
        return HEAD_BIAS if owner == "head" else f"{OUTPUT_LAYER[owner]}.{kind}"
    return f"bert.encoder.layer.{number - 1}.{BLOCK[owner]}.{kind}"


def _read(source: Tensors, model: Transformer, ids: Vocabulary, name: str) -> Tensor:
    theirs = _theirs(name, model)
    value = source.read(theirs)
    if theirs in (WORDS, HEAD_BIAS):
        return ids.taken(value, model.num_rows)
    if theirs == POSITIONS:
        return value + source.read(SEGMENTS)[0]
    return value


@torch.no_grad()
def logits(source: Tensors, model: Transformer, inputs: Inputs) -> Tensor:
    """Logits ``[B, L, V]`` of these weights, computed as BERT does."""
    read = source.double().read

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, read(f"{name}.weight"), read(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = read(f"{name}.weight"), read(f"{name}.bias")
        return F.layer_norm(x, x.shape[-1:], weight, bias, model.norm_eps)

    def gelu(x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh" if model.gelu == "tanh" else "none")

    # The sum becomes a weight of ours, which is float32.
    position = (source.read(POSITIONS) + source.read(SEGMENTS)[0]).double()
    x = F.embedding(inputs.ids_BL, read(WORDS)) + position[: inputs.ids_BL.shape[1]]
    x = norm(x, EMBEDDINGS + "LayerNorm")
    for index in range(model.num_layers):
        p = f"bert.encoder.layer.{index}."
        names = ("query", "key", "value")
        q, k, v = (heads(linear(x, f"{p}attention.self.{n}"), model.num_heads) for n in names)
        attended = linear(attend(q, k, v), p + "attention.output.dense")
        x = norm(x + attended, p + "attention.output.LayerNorm")
        changed = linear(gelu(linear(x, p + "intermediate.dense")), p + "output.dense")
        x = norm(x + changed, p + "output.LayerNorm")
    x = norm(
        gelu(linear(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm"
    )
    return F.linear(x, read(WORDS), read(HEAD_BIAS))
