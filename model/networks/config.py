"""The architecture of the denoiser, as numbers and choices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

ROWS_MULTIPLE = 128
"""The embedding is padded to a multiple of this whatever the layout, so that its rows
divide among tensor-parallel ranks and a checkpoint fits every one of them."""

MOST = {
    "vocab_size": 2**24,
    "width": 2**20,
    "num_layers": 10_000,
    "num_encoder_layers": 10_000,
    "num_heads": 2**16,
    "num_kv_heads": 2**16,
    "head_size": 2**16,
    "mlp_width": 2**24,
    "conditioning_width": 2**20,
    "embedding_width": 2**20,
    "num_positions": 2**31,
    "max_positions": 2**31,
    "causal_annealing_steps": 2**62,
}
"""Sizes beyond all networks that there are: more is a slip, and would overflow somewhere."""


def _wrong_sizes(config: object, *names: str) -> Iterator[str]:
    """What of these fields is below 1 or beyond :data:`MOST`; None stands for no value."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            yield f"{name} must be at least 1, not {value}"
        if value is not None and value > MOST[name]:
            yield f"{name} must be at most {MOST[name]:,}, not {value}"


def _refuse(found: Iterator[str]) -> None:
    """ValueError with a line for each."""
    if lines := list(found):
        raise ValueError("\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """What an encoder-decoder has besides: a bidirectional encoder of the source, and a decoder
    that denoises embeddings of the target (Lin et al. 2023, GENIE, section 3).

    The defaults are a modern shape; the release's is ``projection: tanh``, ``time: additive``,
    ``positions: learned``, with ``mlp: geglu`` beside it.

    Args:
        num_encoder_layers: blocks over the source; ``num_layers`` counts the decoder's.
        encoder: its blocks are plain pre-norm ones, or BERT's (Devlin et al. 2019): post-norm,
            with biases and learned positions, so that it can begin with BERT's weights.
        embedding_width: E, of the embeddings that are noised and denoised.
        projection: between E and D: one linear layer, or Linear-Tanh-Linear.
        output: the projected stream itself (vector, GENIE's), or the mean of all embeddings
            under the categorical that it scores them to (mixture; score interpolation,
            Dieleman et al. 2022, CDCD, section 3.2): which of V tokens a noisy vector may be
            need not be learnt by heart. For x0-prediction.
        time: the level modulates every decoder block (adaln), or is added to its input.
        positions: rotary in self-attention, or a learned vector for each position.
        max_positions: how many learned vectors there are for each side.
        ignore_source_padding: let the decoder see the source's padding, as the release does.
        self_conditioning: give the decoder a draft of the target besides (Chen et al. 2023).
    """

    num_encoder_layers: int = 6
    encoder: Literal["pre_norm", "bert"] = "pre_norm"
    embedding_width: int = 128
    projection: Literal["linear", "tanh"] = "linear"
    output: Literal["vector", "mixture"] = "vector"
    time: Literal["adaln", "additive"] = "adaln"
    positions: Literal["rotary", "learned"] = "rotary"
    max_positions: int = 512
    ignore_source_padding: bool = False
    self_conditioning: bool = False

    def __post_init__(self) -> None:
        _refuse(self._check_sizes())

    def _check_sizes(self) -> Iterator[str]:
        for name in ("num_encoder_layers", "embedding_width", "max_positions"):
            yield from _wrong_sizes(self, name)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A bidirectional DiT over token ids (Sahoo et al. 2024, appendix; Peebles & Xie 2023).

    Args:
        vocab_size: V, the ids of the tokenizer without a [MASK] of our own.
        mask_id: the tokenizer's own mask token, where it has one; else [MASK] is V.
        width: D, of the stream.
        num_layers: blocks between embedding and head.
        num_heads: H, heads of attention.
        mlp: of each block: plain with gelu, or gated by silu (swiglu) or gelu (geglu).
        mlp_width: hidden width of the MLP; 4 D, or 8/3 D rounded up to 64s for swiglu.
        norm: of each branch: with a mean (layernorm) or without (rmsnorm).
        conditioning_width: C, of the vector that adaLN turns into shifts and scales.
        time_conditioning: whether the level reaches the network; off, it sees level 0.
        tied_head: use the embedding as the head's weight.
        embedding_std: of the initial embedding; by default 1, which small models were seen
            to learn faster from than from 0.02, and D^-1/2 where it is also the head.
        hide_padding: hide invalid positions from attention (MDLM's release shows them).
        rotary_base: of the rotary positions' wavelengths (Su et al. 2021).
        dropout: share of activations that are zeroed in training, after each branch of a block.
        seq2seq: makes it an encoder-decoder over embeddings; without, a DiT over ids.
        time_input: what of the level is fed in: 1000 times the level itself, or MDLM's total
            noise, -log(1 - 0.999 level), as its public weights expect.
        block: adaln; or the plain transformer that other models' weights need, which sees no
            level: pre_norm (Llama), or post_norm with BERT's norm after the embedding and its
            transform before the head (Devlin et al. 2019).
        num_kv_heads: heads of keys and values, each shared by H / num_kv_heads queries
            (grouped-query attention, Ainslie et al. 2023); by default H.
        head_size: E, width of a head; by default D / H.
        qkv_bias, attention_bias: biases of queries, keys and values; of attention's output.
        qk_norm: RMSNorm over each head of the queries and keys, before the rotation.
        norm_eps, norm_bias: of every norm over the width.
        gelu: the form of the plain MLP's GELU, as a tanh or exact.
        num_positions: a learned vector for each of so many positions, and no rotation.
        head_bias: of the head; by default where it is not tied.
        attention: causal only to compare with weights that were trained so.
        causal_annealing_steps: of training, over which attention opens from causal to full
            (Gong et al. 2025, section 3.2); 0 for none.
        shifted_output: the prediction for a position is read off the one before it, as
            next-token models were trained (Gong et al. 2025, section 3.2).
        frozen: parameters that are not trained, by patterns over their names, e.g.
            ``layers.0.*`` or ``*.tokens.weight``.

    Raises:
        ValueError: where the numbers do not fit together.
    """

    vocab_size: int
    mask_id: int | None = None
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp: Literal["gelu", "swiglu", "geglu"] = "gelu"
    mlp_width: int | None = None
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    conditioning_width: int = 128
    time_conditioning: bool = False
    tied_head: bool = False
    embedding_std: float | None = None
    hide_padding: bool = False
    rotary_base: float = 10_000.0
    dropout: float = 0.0
    seq2seq: Seq2SeqConfig | None = None
    time_input: Literal["level", "noise"] = "level"
    block: Literal["adaln", "pre_norm", "post_norm"] = "adaln"
    num_kv_heads: int | None = None
    head_size: int | None = None
    qkv_bias: bool = False
    attention_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-5
    norm_bias: bool = False
    gelu: Literal["tanh", "erf"] = "tanh"
    num_positions: int | None = None
    head_bias: bool | None = None
    attention: Literal["full", "causal"] = "full"
    causal_annealing_steps: int = 0
    shifted_output: bool = False
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for check in (
            self._check_sizes,
            self._check_numbers,
            self._check_heads,
            self._check_block,
            self._check_seq2seq,
        ):
            _refuse(check())

    def _check_sizes(self) -> Iterator[str]:
        yield from _wrong_sizes(
            self, "vocab_size", "width", "num_layers", "num_heads", "conditioning_width"
        )
        yield from _wrong_sizes(self, "num_kv_heads", "head_size", "num_positions", "mlp_width")

    def _check_numbers(self) -> Iterator[str]:
        if not 0.0 <= self.dropout < 1.0:
            yield f"dropout must lie in [0, 1), not {self.dropout}"
        if self.norm_eps <= 0:
            yield f"norm_eps must be above 0, not {self.norm_eps}"
        if self.rotary_base <= 0:
            yield f"rotary_base must be above 0, not {self.rotary_base}"
        if self.embedding_std is not None and self.embedding_std < 0:
            yield f"embedding_std must be at least 0, not {self.embedding_std}"
        if not 0 <= self.causal_annealing_steps <= MOST["causal_annealing_steps"]:
            yield f"causal_annealing_steps must be at least 0, not {self.causal_annealing_steps}"
        if self.mask_id is not None and not 0 <= self.mask_id < self.vocab_size:
            yield f"mask_id {self.mask_id} is no id of a vocabulary of {self.vocab_size}"

    def _check_heads(self) -> Iterator[str]:
        if self.head_size is None and self.width % self.num_heads:
            yield f"width {self.width} is not divisible by {self.num_heads} heads"
        elif self.head_width % 2:
            yield f"num_heads: rotary positions need an even head width, not {self.head_width}"
        if self.num_heads % self.kv_heads:
            yield f"num_heads {self.num_heads} is not divisible by {self.kv_heads} num_kv_heads"

    def _check_block(self) -> Iterator[str]:
        if self.block != "adaln" and self.time_conditioning:
            yield f"time_conditioning: block {self.block} sees no level: turn it off"
        if self.block == "adaln" and (self.norm_bias or self.num_positions):
            yield "norm_bias and num_positions go with block pre_norm or post_norm"
        if self.norm_bias and self.norm == "rmsnorm":
            yield "norm_bias goes with norm layernorm; an rmsnorm has none"

    @property
    def bert_encoder(self) -> "ModelConfig":
        """The encoder of an encoder-decoder as a model of its own, where it is BERT's."""
        assert self.seq2seq is not None
        return replace(
            self,
            seq2seq=None,
            frozen=(),
            num_layers=self.seq2seq.num_encoder_layers,
            block="post_norm",
            time_conditioning=False,
            mlp="gelu",
            gelu="erf",
            norm="layernorm",
            norm_bias=True,
            norm_eps=1e-12,
            qkv_bias=True,
            attention_bias=True,
            num_positions=self.seq2seq.max_positions,
        )

    def _check_seq2seq(self) -> Iterator[str]:
        """An encoder-decoder has blocks of its own, without the options of foreign weights."""
        if self.seq2seq is None:
            return
        plain = ModelConfig(vocab_size=1, width=2, num_heads=1)
        for name in (
            "block", "num_kv_heads", "head_size", "qkv_bias", "attention_bias", "qk_norm",
            "attention", "causal_annealing_steps", "shifted_output", "head_bias",
        ):  # fmt: skip
            if getattr(self, name) != getattr(plain, name):
                yield f"{name} is an option of the denoiser; leave it out with seq2seq"

    @property
    def total_layers(self) -> int:
        """Layers that a pipeline can cut apart: the first, all blocks, and the last."""
        return self.num_layers + 2 + (self.seq2seq.num_encoder_layers if self.seq2seq else 0)

    @property
    def shares_embedding(self) -> bool:
        """Whether the last layer uses the table of token embeddings of the first."""
        return self.tied_head or self.seq2seq is not None

    @property
    def table_width(self) -> int:
        """Of the embeddings in that table."""
        return self.seq2seq.embedding_width if self.seq2seq else self.width

    @property
    def max_length(self) -> int | None:
        """The most positions of a text (a source); None where positions are not learned."""
        if self.seq2seq is None:
            return self.num_positions
        learned = self.seq2seq.positions == "learned" or self.seq2seq.encoder == "bert"
        return self.seq2seq.max_positions if learned else None

    @property
    def head_width(self) -> int:
        """E, by default D / H."""
        return self.head_size or self.width // self.num_heads

    @property
    def attention_width(self) -> int:
        """H E, of all queries together."""
        return self.num_heads * self.head_width

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def has_head_bias(self) -> bool:
        """Whether the head has a bias."""
        return not self.tied_head if self.head_bias is None else self.head_bias

    @property
    def hidden_width(self) -> int:
        """Hidden width of the MLP."""
        if self.mlp_width is not None:
            return self.mlp_width
        if self.mlp != "swiglu":
            return 4 * self.width
        return -(-8 * self.width // (3 * 64)) * 64

    @property
    def initial_embedding_std(self) -> float:
        """Standard deviation of the initial embedding."""
        if self.embedding_std is not None:
            return self.embedding_std
        return self.width**-0.5 if self.tied_head else 1.0

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.vocab_size if self.mask_id is None else self.mask_id

    @property
    def num_ids(self) -> int:
        """Ids that may occur in the input: V, and [MASK] where it is our own."""
        return max(self.vocab_size, self.mask + 1)

    @property
    def excluded_rows(self) -> Tensor:
        """Which rows of the head are no answer: [MASK] and padding, bool ``[R]``.

        On the CPU even where models are built on the meta device: layers read its values.
        """
        excluded = torch.ones(self.num_rows, dtype=torch.bool, device="cpu")
        excluded[: self.vocab_size] = False
        excluded[self.mask] = True
        return excluded

    @property
    def num_rows(self) -> int:
        """R, the padded rows of embedding and head."""
        return -(-self.num_ids // ROWS_MULTIPLE) * ROWS_MULTIPLE


def from_fields(fields: Mapping[str, Any]) -> ModelConfig:
    """A configuration from its fields, as ``dataclasses.asdict`` gives them."""
    shape = fields.get("seq2seq")
    seq2seq = None if shape is None else Seq2SeqConfig(**shape)
    frozen = tuple(fields.get("frozen", ()))
    return ModelConfig(**{**fields, "seq2seq": seq2seq, "frozen": frozen})
