"""Floating-point operations and parameters of the denoiser, counted from its shape.

A bidirectional model does 6 N + 12 layers D L operations a token, forward and backward
(Kaplan et al. 2020, table 1, without the causal half), where N counts the weights that
run per token: not the input embedding, not the per-sequence adaLN, and the head only for
the share of the positions at which it runs.
"""

from model.networks.config import ModelConfig


def block_parameters(config: ModelConfig) -> int:
    """Weights of one block that run at every token (attention and MLP, biases included)."""
    width, hidden = config.width, config.hidden_width
    gated = config.mlp != "gelu"
    mlp = (3 if gated else 2) * width * hidden + (0 if gated else hidden + width)
    kv_width = config.kv_heads * config.head_width
    attention = 2 * width * (config.attention_width + kv_width)
    attention += config.qkv_bias * (config.attention_width + 2 * kv_width)
    return attention + config.attention_bias * width + mlp


def per_token_parameters(config: ModelConfig, head_share: float = 1.0) -> float:
    """N: weights that run per token, the head at a share of the positions.

    An encoder-decoder's are those per position of a source and a target of one length.
    """
    if config.seq2seq is None:
        head = config.num_rows * config.width
        return config.num_layers * block_parameters(config) + head_share * head
    blocks = config.seq2seq.num_encoder_layers + config.num_layers
    cross = 4 * config.width * config.width
    rounding = config.num_rows * config.table_width
    return blocks * block_parameters(config) + config.num_layers * cross + rounding


def training_flops_per_token(
    config: ModelConfig, sequence_length: int, head_share: float = 1.0
) -> float:
    """Forward and backward, attention counted whole."""
    attentions = config.num_layers
    if config.seq2seq is not None:
        attentions = config.seq2seq.num_encoder_layers + 2 * config.num_layers
    attention = 12 * attentions * config.attention_width * sequence_length
    return 6 * per_token_parameters(config, head_share) + attention
