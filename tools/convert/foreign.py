"""Validation of a foreign config.json: the type and range of every entry that is read here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from configs.errors import UserError

LARGEST = 2**24
"""Upper bound of every size: below it no shape goes beyond 64 bits."""

SIZES = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
        "d_model",
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "mlp_hidden_size",
        "max_sequence_length",
        "n_blocks",
        "cond_dim",
        "hidden_dim",
        "model_length",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "num_encoder_layers",
        "width",
        "mlp_width",
        "head_size",
        "conditioning_width",
        "num_positions",
        "max_positions",
        "embedding_width",
    ]
)
IDS = frozenset({"mask_token_id", "mask_index"})
NUMBERS = frozenset(
    ["rms_norm_eps", "layer_norm_eps", "rope_theta", "dropout", "hidden_dropout_prob"]
)
FLAGS = frozenset(
    [
        "tie_word_embeddings",
        "mlp_bias",
        "use_sliding_window",
        "is_decoder",
        "include_qkv_bias",
        "weight_tying",
        "time_conditioning",
    ]
)
TEXTS = frozenset(
    [
        "model_type",
        "hidden_act",
        "position_embedding_type",
        "rope_type",
        "type",
        "block_type",
        "layer_norm_type",
        "activation_type",
    ]
)
OBJECTS = frozenset({"rope_parameters", "rope_scaling", "objective"})
LAYERS = frozenset(
    ["num_hidden_layers", "n_layers", "n_blocks", "num_layers", "num_encoder_layers"]
)


def checked(config: Mapping[str, Any], origin: str, num_tensors: int) -> Mapping[str, Any]:
    """The entries that are not null; UserError that lists every one of a wrong type or range.

    Args:
        num_tensors: of the weights, of which each layer has some.
    """
    problems = list(_problems(config, "", num_tensors))
    if problems:
        raise UserError(f"{origin}/config.json:\n  " + "\n  ".join(problems))
    return {name: value for name, value in config.items() if value is not None}


def _problems(config: Mapping[str, Any], prefix: str, num_tensors: int) -> list[str]:
    found = []
    for name, value in config.items():
        for names, fits, kind in KINDS:
            if name in names and value is not None and not fits(value):
                shown = repr(value)
                shown = shown if len(shown) <= 60 else shown[:60] + "..."
                found.append(f"{prefix}{name} is {shown}, not {kind}")
                break
        else:
            if name in LAYERS and value is not None and value > num_tensors:
                found.append(f"{prefix}{name} is {value}, but there are {num_tensors} tensors")
            if isinstance(value, dict):
                found += _problems(value, f"{prefix}{name}.", num_tensors)
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < 1e300 and math.isfinite(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


KINDS: tuple[tuple[frozenset[str], Callable[[Any], bool], str], ...] = (
    (
        SIZES,
        lambda value: _is_whole(value) and 1 <= value <= LARGEST,
        f"a whole number from 1 to {LARGEST:,}",
    ),
    (
        IDS,
        lambda value: _is_whole(value) and 0 <= value <= LARGEST,
        f"a whole number from 0 to {LARGEST:,}",
    ),
    (NUMBERS, _is_number, "a number"),
    (FLAGS, lambda value: isinstance(value, bool), "true or false"),
    (TEXTS, lambda value: isinstance(value, str), "a text"),
    (OBJECTS, lambda value: isinstance(value, dict), "an object"),
    (frozenset({"architectures"}), _are_texts, "a list of names"),
)
