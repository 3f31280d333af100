"""Floating-point operations and parameters of a network, counted from its configuration.

A bidirectional model does 6 N + 12 layers D L operations a token, forward and backward
(Kaplan et al. 2020, table 1, without the causal half), where N counts the weights that
run per token: not the input embedding, not the per-sequence adaLN, and the head only for
the share of the positions at which it runs. What each architecture counts by itself:
:meth:`ModelConfig.per_token_parameters` and :meth:`ModelConfig.layer_flops`.
"""

from model.networks.config import ModelConfig

LOOK_UP = 0.01
"""A look-up costs next to nothing: it counts as this share of a block, so that a stage of
nothing but the embedding is never the cheapest answer."""


def block_parameters(config: ModelConfig) -> int:
    """Weights of one block that run at every token (attention and MLP, biases included)."""
    width, hidden = config.width, config.hidden_width
    gated = config.mlp != "gelu"
    mlp = (3 if gated else 2) * width * hidden + (0 if gated else hidden + width)
    kv_width = config.kv_heads * config.head_width
    attention = 2 * width * (config.attention_width + kv_width)
    attention += config.qkv_bias * (config.attention_width + 2 * kv_width)
    return attention + config.attention_bias * width + mlp


def block_flops(config: ModelConfig, length: int) -> float:
    """Forward and backward operations of one block per position."""
    return 6.0 * block_parameters(config) + 12.0 * config.attention_width * length


def training_flops_per_token(
    config: ModelConfig, sequence_length: int, head_share: float = 1.0
) -> float:
    """Forward and backward operations of the network, attention counted in full."""
    attention = 12 * config.num_attentions * config.attention_width * sequence_length
    return 6 * config.per_token_parameters(head_share) + attention
