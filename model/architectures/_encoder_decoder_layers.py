"""Layers of the encoder-decoder: input, encoder block, decoder block, output.

The stream is ``(memory_BSD, h_BLD, c_BKC, source_valid_BS)`` up to the last decoder block,
which returns ``(h_BLD, c_BKC)``; without adaLN there is no ``c``. Memory (the encoder's hidden
states) and target are passed together, so that a pipeline may split between any two layers. S is
the number of source positions, E the width of the noised embeddings.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architectures._encoder_decoder_config import EncoderDecoderConfig
from model.architectures.transformer import PlainBlock, Transformer
from model.networks.adaln import FREQUENCIES, modulate, sinusoid
from model.networks.layers import (
    Attention,
    Checkpointed,
    HasTable,
    Mlp,
    Norm,
    Stream,
    embedded,
)
from model.networks.linears import LayerFactory
from model.prediction import Outputs


def bert_encoder(config: EncoderDecoderConfig) -> Transformer:
    """Configuration of a BERT encoder as a standalone model."""
    return Transformer(
        vocab_size=config.vocab_size,
        mask_id=config.mask_id,
        width=config.width,
        num_layers=config.num_encoder_layers,
        num_heads=config.num_heads,
        mlp="gelu",
        mlp_width=config.mlp_width,
        gelu="erf",
        norm="layernorm",
        norm_eps=1e-12,
        rotary_base=config.rotary_base,
        embedding_std=config.embedding_std,
        dropout=config.dropout,
        qkv_bias=True,
        attention_bias=True,
        norm_first=False,
        norm_bias=True,
        num_positions=config.max_positions,
    )


class Projection(nn.Module):
    """Map between embeddings and stream: linear, or Linear-Tanh-Linear (Li et al. 2022, code)."""

    def __init__(self, num_in: int, num_out: int, how: str) -> None:
        super().__init__()
        inside = max(num_in, num_out)
        self.first = nn.Linear(num_in, inside) if how == "tanh" else None
        self.last = nn.Linear(inside if how == "tanh" else num_in, num_out)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        if self.first is not None:
            x = torch.tanh(self.first(x))
        out: Tensor = self.last(x)
        return out


class EncoderDecoderInput(HasTable):
    """The first layer: source embedding, noisy target embeddings and noise level."""

    def __init__(self, config: EncoderDecoderConfig, factory: LayerFactory) -> None:
        super().__init__()
        width, embedding_width = config.width, config.embedding_width
        self.source_tokens = factory.embedding(config.num_rows, width)
        self.tokens = factory.embedding(config.num_rows, embedding_width)
        drafted = 2 if config.self_conditioning else 1
        self.up = Projection(drafted * embedding_width, width, config.projection)
        self.time_in = nn.Linear(FREQUENCIES, config.conditioning_width)
        condition_width = config.conditioning_width
        time_width = condition_width if config.time == "adaln" else width
        self.time_out = nn.Linear(condition_width, time_width)
        is_bert = config.encoder == "bert"
        self.source_norm = Norm(bert_encoder(config) if is_bert else config)
        self.norm = Norm(config)
        learned = config.positions == "learned"
        self.source_positions = (
            nn.Embedding(config.max_positions, width) if learned or is_bert else None
        )
        self.positions = nn.Embedding(config.max_positions, width) if learned else None
        self.additive = config.time == "additive"
        self.cut = factory.cut

    def source(self, source_BS: Tensor) -> Tensor:
        """Embed the source: ids, or their embeddings, to ``[B, S, D]``."""
        h_BSD = _placed(embedded(self.source_tokens, source_BS), self.source_positions)
        return self.cut(self.source_norm(h_BSD))

    def noisy(self, noise_BLE: Tensor, signal_BK: Tensor, ids_BL: Tensor) -> Tensor:
        """Noisy embeddings ``signal * embedding(ids) + noise``, float32 ``[B, L, E]``."""
        return torch.addcmul(noise_BLE, self.tokens(ids_BL).float(), signal_BK[..., None])

    def target(
        self,
        noise_BLE: Tensor,
        signal_BK: Tensor,
        level_BK: Tensor,
        self_cond_BLE: Tensor | None,
        ids_BL: Tensor,
    ) -> Stream:
        """Embed the noisy target: ``(h_BLD, c_BKC)``; the noise is added in float32."""
        dtype = self.time_in.weight.dtype
        x_BLE = self.noisy(noise_BLE, signal_BK, ids_BL)
        if self_cond_BLE is not None:
            x_BLE = torch.cat((x_BLE, self_cond_BLE), dim=-1)
        time = self.time_out(F.silu(self.time_in(sinusoid(1000.0 * level_BK).to(dtype))))
        h_BLD = _placed(self.up(x_BLE.to(dtype)), self.positions)
        if self.additive:
            return (self.cut(self.norm(h_BLD + time)),)
        return (self.cut(self.norm(h_BLD)), F.silu(time))

    def forward(self, inputs: tuple[Tensor, ...]) -> Stream:
        """``(noise, signal, level[, self_cond], ids, source, source_valid)`` to the stream."""
        noise_BLE, signal_BK, level_BK, *self_cond, ids_BL, source_BS, source_valid_BS = inputs
        target = self.target(
            noise_BLE, signal_BK, level_BK, self_cond[0] if self_cond else None, ids_BL
        )
        return (self.source(source_BS), *target, source_valid_BS)


def _placed(h_BLD: Tensor, positions: nn.Embedding | None) -> Tensor:
    """Add learned position embeddings, if there are any.

    Raises:
        ValueError: the text is longer than the number of position embeddings.
    """
    if positions is None:
        return h_BLD
    length = h_BLD.shape[1]
    if length > positions.num_embeddings:
        raise ValueError(
            f"a text of {length} positions, but model.max_positions is {positions.num_embeddings}"
        )
    return h_BLD + positions(torch.arange(length, device=h_BLD.device))


class EncoderBlock(Checkpointed):
    """Pre-norm encoder block: bidirectional attention over the source, then the MLP.

    Args:
        last: apply a final norm to the memory, which all decoder blocks read.
    """

    def __init__(self, config: EncoderDecoderConfig, factory: LayerFactory, *, last: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.spread = factory.spread
        rotary = config.positions == "rotary"
        self.attention_norm, self.mlp_norm = Norm(config), Norm(config)
        self.attention = Attention(config, factory, rotary=rotary)
        self.mlp = Mlp(config, factory)
        self.memory_norm = Norm(config) if last else None

    def _forward(self, stream: Stream) -> Stream:
        memory, *rest = stream
        seen_BS = rest[-1].bool()
        normed = self.attention_norm(memory, self.spread)
        memory = memory + self.dropout(self.attention(normed, seen_BS))
        normed = self.mlp_norm(memory, self.spread)
        memory = memory + self.dropout(self.mlp(normed))
        if self.memory_norm is not None:
            memory = self.memory_norm(memory, self.spread)
        return (memory, *rest)


class BertBlock(PlainBlock):
    """BERT encoder block (post-norm) over the source."""

    def __init__(self, config: EncoderDecoderConfig, factory: LayerFactory) -> None:
        super().__init__(bert_encoder(config), factory)

    def _forward(self, stream: Stream) -> Stream:
        memory, *rest = stream
        memory, _ = super()._forward((memory, rest[-1]))
        return (memory, *rest)


class DecoderBlock(Checkpointed):
    """Decoder block: self-attention, cross-attention, MLP; with adaLN each modulated and gated.

    Args:
        last: drop the memory from the stream, since no later layer reads it.
    """

    def __init__(self, config: EncoderDecoderConfig, factory: LayerFactory, *, last: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.spread = factory.spread
        self.attention_norm, self.cross_norm, self.mlp_norm = (Norm(config) for _ in range(3))
        self.attention = Attention(config, factory, rotary=config.positions == "rotary")
        self.cross = Attention(config, factory, rotary=False)
        self.mlp = Mlp(config, factory)
        self.modulation = (
            nn.Linear(config.conditioning_width, 9 * config.width)
            if config.time == "adaln"
            else None
        )
        self.sees_padding = config.ignore_source_padding
        self.last = last

    def _forward(self, stream: Stream) -> Stream:
        memory, x, *condition, source_valid_BS = stream
        seen_BS = None if self.sees_padding else source_valid_BS.bool()
        turns: tuple[tuple[Norm, Callable[[Tensor], Tensor]], ...] = (
            (self.attention_norm, lambda h: self.attention(h, None)),
            (self.cross_norm, lambda h: self.cross(h, seen_BS, memory)),
            (self.mlp_norm, self.mlp),
        )
        if self.modulation is None:
            for norm, branch in turns:
                x = x + self.dropout(branch(norm(x, self.spread)))
        else:
            parts = self.spread(self.modulation(condition[0])).chunk(9, dim=-1)
            for number, (norm, branch) in enumerate(turns):
                shift, scale, gate = parts[3 * number : 3 * number + 3]
                changed = branch(modulate(norm(x, self.spread), shift, scale))
                x = torch.addcmul(x, gate, self.dropout(changed))
        if self.last:
            return (x, *condition)
        return (memory, x, *condition, source_valid_BS)


class EncoderDecoderOutput(HasTable):
    """The last layer: predicted embeddings at the predicted positions, and rounding to ids.

    It shares the embedding table of the first layer: a token's embedding is its row of the
    rounding classifier (Li et al. 2022, Diffusion-LM, section 4.2).
    """

    def __init__(self, config: EncoderDecoderConfig, factory: LayerFactory) -> None:
        super().__init__()
        self.norm = Norm(config)
        self.modulation = (
            nn.Linear(config.conditioning_width, 2 * config.width)
            if config.time == "adaln"
            else None
        )
        self.down = Projection(config.width, config.embedding_width, config.projection)
        self.tokens = factory.embedding(config.num_rows, config.embedding_width)
        self.head = factory.head(
            config.embedding_width, config.num_rows, config.excluded_rows, bias=True
        )
        self.head.weight = self.tokens.weight
        self.mixture = config.output == "mixture"
        self.whole, self.rows = factory.whole, factory.rows

    def forward(
        self,
        stream: Stream,
        predict_mask_BL: Tensor,
        ids_BL: Tensor | None = None,
        x0_noise_BLE: Tensor | None = None,
    ) -> Outputs:
        """Predict ``vector_ME``; given ids and noise, also ``clean_ME``, the embeddings of the
        ids, and ``rounding``, the logits ``[M, R]`` of these embeddings with the noise added.
        """
        x, *condition = stream
        x = self.norm(self.whole(x)[predict_mask_BL])
        if self.modulation is not None:
            shift, scale = self.modulation(condition[0]).chunk(2, dim=-1)
            row_M, column_M = predict_mask_BL.nonzero(as_tuple=True)
            column_M = column_M if shift.shape[1] > 1 else torch.zeros_like(column_M)
            x = modulate(x, shift[row_M, column_M], scale[row_M, column_M])
        output_ME = self.down(x)
        if self.mixture:
            output_ME = self.head(output_ME, give="mean")
        if ids_BL is None or x0_noise_BLE is None:
            return {"vector_ME": output_ME}
        clean_ME = self.tokens(ids_BL[predict_mask_BL])
        noised_ME = clean_ME + x0_noise_BLE[predict_mask_BL].to(clean_ME.dtype)
        return {"vector_ME": output_ME, "clean_ME": clean_ME, "rounding": self.head(noised_ME)}

    def round(self, x_ME: Tensor) -> Tensor:
        """Round each embedding to its likeliest id, ``[M]`` (Diffusion-LM, eq. 2)."""
        return self._best(self.head(x_ME.to(self.weight.dtype)).float())

    def nearest(self, x_ME: Tensor) -> Tensor:
        """The embedding ``[M, E]`` nearest to each vector (clamping, Diffusion-LM, section 4.3)."""
        nearest_ME: Tensor = self.tokens(self._best(self.head(x_ME, give="nearest")))
        return nearest_ME.float()

    def _best(self, scores_MR: Tensor) -> Tensor:
        return self.rows(scores_MR.shape[-1]).best(scores_MR)
