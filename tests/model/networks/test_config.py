from typing import Any

import pytest

from configs.build import Plugin
from model.architectures.dit import DiT


@pytest.mark.parametrize(
    ("vocab", "mask_id", "mask", "num_ids", "num_rows"),
    [
        (127, None, 127, 128, 128),
        (128, None, 128, 129, 256),
        (128, 5, 5, 128, 128),
        (50257, None, 50257, 50258, 50304),
        (30522, 103, 103, 30522, 30592),
    ],
)
def test_rows_are_the_ids_padded_to_128(
    vocab: int, mask_id: int | None, mask: int, num_ids: int, num_rows: int
) -> None:
    config = DiT(vocab_size=vocab, mask_id=mask_id)
    assert (config.mask, config.num_ids, config.num_rows) == (mask, num_ids, num_rows)


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        ({"mlp": "gelu"}, 3072),
        ({"mlp": "swiglu"}, 2048),
        ({"mlp": "swiglu", "width": 128, "num_heads": 4}, 384),
        ({"mlp": "swiglu", "width": 24, "num_heads": 4}, 64),
        ({"mlp": "swiglu", "mlp_width": 100}, 100),
        ({"mlp": "gelu", "mlp_width": 100}, 100),
    ],
)
def test_the_hidden_width_follows_from_the_width(settings: dict[str, Any], hidden: int) -> None:
    assert DiT(vocab_size=10, **settings).hidden_width == hidden


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"conditioning_width": -1}, "conditioning_width must be at least 1, not -1"),
        ({"width": 10, "num_heads": 3}, "width 10 is not divisible by 3 heads"),
        ({"width": 15, "num_heads": 3}, "need an even head width, not 5"),
        ({"mask_id": 20}, "mask_id 20 is no id of a vocabulary of 20"),
        ({"mask_id": -1}, "mask_id -1 is no id of a vocabulary of 20"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"dropout": -0.1}, "dropout must lie in"),
        ({"num_kv_heads": 5}, "num_heads 12 is not divisible by 5 num_kv_heads"),
        ({"num_kv_heads": 0}, "num_kv_heads must be at least 1, not 0"),
        ({"head_size": 3}, "need an even head width, not 3"),
        ({"name": "transformer", "norm": "rmsnorm", "norm_bias": True}, "an rmsnorm has none"),
        ({"name": "transformer", "num_positions": 0}, "num_positions must be at least 1"),
        ({"name": "encoder_decoder", "max_positions": 0}, "max_positions must be at least 1"),
        ({"norm_eps": 0.0}, "norm_eps must be above 0"),
        ({"causal_annealing_steps": -1}, "causal_annealing_steps must be at least 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    given = {"name": "dit", "vocab_size": 20, **settings}
    kind = Plugin("model.architectures").resolve(given.pop("name"))
    with pytest.raises(ValueError, match=message):
        kind(**given)
