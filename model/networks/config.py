"""Base configuration of every architecture, with the properties that it reports."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.needs import Need

ROWS_MULTIPLE = 128
"""The embedding is padded to a multiple of this under every layout, so that its rows
divide among tensor-parallel ranks and checkpoints do not depend on the layout."""

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
"""Upper bounds far above any real network: a larger value is a typo and would overflow."""

FORMER = {
    "seq2seq": "now an architecture of its own: write model.name=encoder_decoder, and its keys "
    "beside the others, such as model.num_encoder_layers=6 for model.seq2seq.num_encoder_layers=6",
    "block": "now the architecture: write model.name=dit for adaln, model.name=transformer for "
    "pre_norm, and model.name=transformer with model.norm_first=false for post_norm",
}
"""Keys of earlier versions, with what replaces them."""


def wrong_sizes(config: object, *names: str) -> Iterator[str]:
    """One line per field that is below 1 or above :data:`MOST`; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            yield f"{name} must be at least 1, not {value}"
        if value is not None and value > MOST[name]:
            yield f"{name} must be at most {MOST[name]:,}, not {value}"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """Configuration shared by every architecture.

    Args:
        vocab_size: V, the tokenizer's number of ids, without an added [MASK].
        mask_id: id of the tokenizer's own mask token, if it has one; otherwise [MASK] is added
            with id V.
        width: D, the hidden size.
        num_layers: blocks between embedding and head; of an encoder-decoder, the decoder's.
        num_heads: H, the number of attention heads.
        mlp: MLP of each block: plain with gelu, or gated by silu (swiglu) or gelu (geglu).
        mlp_width: hidden width of the MLP; by default 4 D, or for swiglu 8/3 D rounded up to a
            multiple of 64.
        gelu: the plain MLP's GELU: tanh approximation, or exact (erf).
        norm: normalization of each branch: layernorm, or rmsnorm (without mean).
        norm_eps: epsilon of every norm over the width.
        rotary_base: base of the rotary embedding's wavelengths (Su et al. 2021).
        embedding_std: standard deviation of the token embedding at initialization; by default 1,
            with which small models learned faster than with 0.02, or D^-1/2 if the head is tied.
        dropout: dropout probability after each branch of a block, in training.
        frozen: parameters that are not trained, by patterns over their names, e.g.
            ``layers.0.*`` or ``*.tokens.weight``.

    Raises:
        ValueError: invalid or incompatible values.
    """

    former_keys: ClassVar[Mapping[str, str]] = FORMER

    vocab_size: int
    mask_id: int | None = None
    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp: Literal["gelu", "swiglu", "geglu"] = "gelu"
    mlp_width: int | None = None
    gelu: Literal["tanh", "erf"] = "tanh"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = 1e-5
    rotary_base: float = 10_000.0
    embedding_std: float | None = None
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = dict.fromkeys(
            name
            for cls in reversed(type(self).__mro__)
            for name in vars(cls)
            if name.startswith("_check_")
        )
        for name in names:
            if lines := list(getattr(self, name)()):
                raise ValueError("\n".join(lines))

    def _check_sizes(self) -> Iterator[str]:
        yield from wrong_sizes(self, "vocab_size", "width", "num_layers", "num_heads", "mlp_width")

    def _check_numbers(self) -> Iterator[str]:
        if not 0.0 <= self.dropout < 1.0:
            yield f"dropout must lie in [0, 1), not {self.dropout}"
        if self.norm_eps <= 0:
            yield f"norm_eps must be above 0, not {self.norm_eps}"
        if self.rotary_base <= 0:
            yield f"rotary_base must be above 0, not {self.rotary_base}"
        if self.embedding_std is not None and self.embedding_std < 0:
            yield f"embedding_std must be at least 0, not {self.embedding_std}"
        if self.mask_id is not None and not 0 <= self.mask_id < self.vocab_size:
            yield f"mask_id {self.mask_id} is no id of a vocabulary of {self.vocab_size}"

    def _check_heads(self) -> Iterator[str]:
        if self.width % self.num_heads:
            yield f"width {self.width} is not divisible by {self.num_heads} heads"
        elif self.head_width % 2:
            yield f"num_heads: rotary positions need an even head width, not {self.head_width}"

    # -- what each architecture reports ---------------------------------------------------

    @property
    @abstractmethod
    def network(self) -> type[nn.Module]:
        """The network class, a subclass of :class:`model.networks.base.Network`."""

    @property
    @abstractmethod
    def offers(self) -> frozenset[Need]:
        """The needs of an objective that this network meets."""

    @property
    @abstractmethod
    def shares_embedding(self) -> bool:
        """Whether the last layer is tied to the first layer's token embedding."""

    @property
    @abstractmethod
    def max_length(self) -> int | None:
        """Maximum length of a text (or source); None if positions are not learned."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """Number of layers and widths, as text."""

    @abstractmethod
    def layer_flops(self, length: int, head_share: float) -> list[float]:
        """Forward and backward FLOPs per position of each layer: first, blocks, last.

        Args:
            length: sequence length, and source length if there is a source.
            head_share: share of the positions at which the head runs.
        """

    @abstractmethod
    def per_token_parameters(self, head_share: float = 1.0) -> float:
        """N: weights used per token; the head counts for the share of positions it runs at."""

    @property
    def num_attentions(self) -> int:
        """Number of attention layers."""
        return self.num_layers

    def split_activations(self, tensor: int) -> int:
        """Activation elements per position that a block saves, split over T = ``tensor`` ranks.

        Queries, keys, values, attention output and the MLP's hidden activations; each rank has
        at least one key head.
        """
        mlp = 2 if self.mlp == "gelu" else 4
        keys = max(self.kv_heads, tensor) * self.head_width
        return 2 * self.attention_width + 2 * keys + mlp * self.hidden_width

    @property
    def total_layers(self) -> int:
        """Layers that a pipeline can split: the first, all blocks, and the last."""
        return self.num_layers + 2

    @property
    def has_uniform_blocks(self) -> bool:
        """Whether all blocks have the same trained parameters, so that planners count just one."""
        return not self.frozen

    @property
    def reads_source(self) -> bool:
        """Whether the network reads a source text besides the noisy one."""
        return False

    @property
    def ignore_source_padding(self) -> bool:
        """Whether the network attends to source padding as well; may be a field."""
        return False

    @property
    def max_target_length(self) -> int | None:
        """Maximum length of the text that is denoised; None for no limit."""
        return self.max_length

    @property
    def encoder_model(self) -> "ModelConfig | None":
        """The encoder as a standalone model that can initialize this one's encoder, or None."""
        return None

    def name_in_encoder(self, name: str) -> str | None:
        """The name of an encoder parameter in :attr:`encoder_model`; None for other parameters.

        Raises:
            ValueError: there is no such model.
        """
        raise ValueError("only an encoder of BERT's kind (model.encoder: bert) is a model")

    @property
    def time_conditioning(self) -> bool:
        """Whether the network takes the noise level as input; may be a field."""
        return False

    @property
    def attention(self) -> Literal["full", "causal"]:
        """The attention mask, unless the objective sets one; may be a field."""
        return "full"

    @property
    def causal_annealing_steps(self) -> int:
        """Training steps over which the mask goes from causal to full; may be a field."""
        return 0

    # -- attention settings, some of which an architecture may have as fields ---------------

    @property
    def head_width(self) -> int:
        """E, the width of a head; by default D / H."""
        return self.width // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_heads

    @property
    def qkv_bias(self) -> bool:
        """Whether the q, k and v projections have biases."""
        return False

    @property
    def attention_bias(self) -> bool:
        """Whether attention's output projection has a bias."""
        return False

    @property
    def qk_norm(self) -> bool:
        """Whether each query and key head is normalized (QK norm)."""
        return False

    @property
    def norm_bias(self) -> bool:
        """Whether norms over the width have a bias."""
        return False

    # -- derived numbers --------------------------------------------------------------------

    @property
    def architecture(self) -> str:
        """The architecture's name in a configuration: its file name."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def table_width(self) -> int:
        """Width of the token embedding table."""
        return self.width

    @property
    def attention_width(self) -> int:
        """H E, the total width of the query heads."""
        return self.num_heads * self.head_width

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
        """Standard deviation of the token embedding at initialization."""
        return 1.0 if self.embedding_std is None else self.embedding_std

    @property
    def mask(self) -> int:
        """The id of [MASK]."""
        return self.vocab_size if self.mask_id is None else self.mask_id

    @property
    def num_ids(self) -> int:
        """Number of ids that may occur in the input: V, plus [MASK] if it is added."""
        return max(self.vocab_size, self.mask + 1)

    @property
    def num_rows(self) -> int:
        """R, rows of embedding and head, padded to a multiple of :data:`ROWS_MULTIPLE`."""
        return -(-self.num_ids // ROWS_MULTIPLE) * ROWS_MULTIPLE

    @property
    def excluded_rows(self) -> Tensor:
        """Rows of the head that are never predicted: [MASK] and padding, bool ``[R]``.

        On the CPU even if the model is built on the meta device: layers read its values.
        """
        excluded = torch.ones(self.num_rows, dtype=torch.bool, device="cpu")
        excluded[: self.vocab_size] = False
        excluded[self.mask] = True
        return excluded
