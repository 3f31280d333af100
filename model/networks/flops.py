"""FLOPs and parameters of a network, counted from its configuration.

A bidirectional model takes 6 N + 12 layers D L FLOPs per token, forward and backward
(Kaplan et al. 2020, table 1, without the causal half), where N counts the weights used
per token: not the input embedding, not the per-sequence adaLN, and the head only for
the share of the positions at which it runs. Counted by each architecture:
:meth:`ModelConfig.per_token_parameters` and :meth:`ModelConfig.layer_flops`.
"""

from model.networks.config import ModelConfig

LOOK_UP = 0.01
"""Cost of the embedding look-up as a share of a block's, almost nothing; above zero so that a
pipeline stage of the embedding alone is never the cheapest split."""


def block_parameters(config: ModelConfig) -> int:
    """Weights of one block used per token (attention and MLP, biases included)."""
    width, hidden = config.width, config.hidden_width
    gated = config.mlp != "gelu"
    mlp = (3 if gated else 2) * width * hidden + (0 if gated else hidden + width)
    kv_width = config.kv_heads * config.head_width
    attention = 2 * width * (config.attention_width + kv_width)
    attention += config.qkv_bias * (config.attention_width + 2 * kv_width)
    return attention + config.attention_bias * width + mlp


def block_flops(config: ModelConfig, length: int) -> float:
    """Forward and backward FLOPs of one block per position."""
    return 6.0 * block_parameters(config) + 12.0 * config.attention_width * length


def training_flops_per_token(
    config: ModelConfig, sequence_length: int, head_share: float = 1.0
) -> float:
    """Forward and backward FLOPs of the network per token, attention counted in full."""
    attention = 12 * config.num_attentions * config.attention_width * sequence_length
    return 6 * config.per_token_parameters(head_share) + attention
