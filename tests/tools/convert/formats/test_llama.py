"""Llama and Qwen models of transformers, equal under the causal mask they were built for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import random_weights
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from configs.errors import UserError
from configs.load import load
from model.networks.base import Network
from model.networks.build import build
from pretrain.config import RunConfig
from tools.convert.format import Options
from tools.convert.from_hf import from_hf

SIZES: dict[str, Any] = {
    "vocab_size": 70,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CAUSAL: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": False}),
    "llama-grouped": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 2}),
    "llama-biased": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True}),
    "llama-wide-heads": (LlamaForCausalLM, LlamaConfig, {"head_dim": 16}),
    "llama-base": (
        LlamaForCausalLM,
        LlamaConfig,
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
    ),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"num_key_value_heads": 2}),
    "qwen2-tied": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"num_key_value_heads": 2, "head_dim": 16}),
}


def causal_model(name: str, folder: Path, **more: Any) -> Any:
    """A random model with every branch open, saved."""
    kind, config, settings = CAUSAL[name]
    model = random_weights(kind(config(**{**SIZES, **settings, **more})))
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def theirs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


def causal(denoiser: Network) -> Network:
    """The same weights under the causal mask, unshifted."""
    config = replace(denoiser.config, attention="causal", shifted_output=False)
    found = build(replace(config, causal_annealing_steps=0))
    found.load_state_dict(denoiser.state_dict())
    return found.eval()


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_are_equal_under_the_causal_mask(
    name: str, tmp_path: Path, loaded, ids_of, our_logits
) -> None:
    model = causal_model(name, tmp_path / "hf")
    report = from_hf(tmp_path / "hf", tmp_path / "in", shard_bytes=9_000)
    assert report["equal"]
    assert report["inputs"].endswith("under the causal mask")
    denoiser = loaded(tmp_path / "in")
    ids = ids_of(70)
    expected = theirs(model, ids)
    torch.testing.assert_close(our_logits(causal(denoiser), ids), expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 1
    assert not torch.allclose(our_logits(denoiser, ids), expected, atol=0.1)


def test_the_output_is_shifted_by_one(tmp_path: Path, loaded, ids_of, our_logits) -> None:
    model = causal_model("qwen3", tmp_path / "hf")
    ids = ids_of(70)
    for shifted in (True, False):
        options = Options(shifted_output=shifted)
        from_hf(tmp_path / "hf", tmp_path / f"in-{shifted}", options=options)
        denoiser = loaded(tmp_path / f"in-{shifted}")
        config = replace(denoiser.config, attention="causal")
        found = build(config)
        found.load_state_dict(denoiser.state_dict())
        logits, expected = our_logits(found.eval(), ids), theirs(model, ids)
        if shifted:
            expected = torch.cat([expected[:, :1], expected[:, :-1]], dim=1)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_the_mask_token_is_new_and_starts_as_the_mean(tmp_path: Path, loaded) -> None:
    model = causal_model("llama", tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "in")
    denoiser = loaded(tmp_path / "in")
    config = denoiser.config
    assert (config.vocab_size, config.mask, config.num_ids) == (70, 70, 71)
    table, words = denoiser.embedding.weight, model.get_input_embeddings().weight
    assert torch.equal(table[:70], words)
    torch.testing.assert_close(table[70], words.mean(dim=0), rtol=0, atol=1e-6)
    assert (table[71:] == 0).all()


def test_a_mask_token_that_is_there_already(tmp_path: Path, loaded) -> None:
    causal_model("llama", tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "in", options=Options(mask_id=69))
    config = loaded(tmp_path / "in").config
    assert (config.vocab_size, config.mask, config.num_ids) == (70, 69, 70)
    with pytest.raises(UserError, match="--mask-id 70 is no id of a vocabulary of 70"):
        from_hf(tmp_path / "hf", tmp_path / "other", options=Options(mask_id=70))


def test_rows_beyond_the_tokenizer_are_left_out(tmp_path: Path, loaded, ids_of, our_logits) -> None:
    model = causal_model("qwen2-tied", tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "in", options=Options(vocab_size=64))
    denoiser = loaded(tmp_path / "in")
    assert (denoiser.config.vocab_size, denoiser.config.mask) == (64, 64)
    ids = ids_of(64)
    found = our_logits(causal(denoiser), ids)
    torch.testing.assert_close(found, theirs(model, ids)[..., :64], rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"the tokenizer has 71 ids, .* 70 rows"):
        from_hf(tmp_path / "hf", tmp_path / "other", options=Options(vocab_size=71))


def test_the_model_block_beside_the_checkpoint_builds_it(tmp_path: Path, root: Path) -> None:
    causal_model("qwen3", tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "in", options=Options(annealing_steps=30))
    run = load(RunConfig, [root / "configs" / "tiny.yaml", tmp_path / "in" / "model.yaml"])
    assert run.model.causal_annealing_steps == 30
    assert run.model.shifted_output
    assert run.model.qk_norm
    assert run.model.num_kv_heads == 2


def test_bfloat16_weights_come_in_exactly(tmp_path: Path, loaded) -> None:
    model = causal_model("llama", tmp_path / "hf").bfloat16()
    model.save_pretrained(tmp_path / "half")
    assert from_hf(tmp_path / "half", tmp_path / "in")["equal"]
    word = loaded(tmp_path / "in").embedding.weight[3]
    assert torch.equal(word, model.get_input_embeddings().weight[3].float())


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "architecture gpt2; weights come in from bert, llada"),
        ({"mlp_bias": True}, "mlp_bias is on"),
        ({"hidden_act": "gelu"}, "hidden_act gelu, not silu"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type llama3; only default"),
        ({"hidden_size": None}, "its config.json lacks hidden_size"),
        ({"num_attention_heads": 3}, "32 is not divisible|3 is not divisible"),
        ({"intermediate_size": 47}, r"gate_proj.weight has shape \[48, 32\], not \[47, 32\]"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is not part of"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is on, but lm_head.weight is not"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    causal_model("llama", tmp_path / "hf", head_dim=None)
    edited(tmp_path / "hf", **{"head_dim": None, **changes})
    with pytest.raises(UserError, match=message):
        from_hf(tmp_path / "hf", tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_every_missing_and_extra_tensor_is_named(tmp_path: Path) -> None:
    causal_model("llama", tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    state = load_file(file)
    del state["model.norm.weight"], state["model.layers.1.mlp.up_proj.weight"]
    state["model.layers.0.extra.weight"] = torch.zeros(2)
    state["other"] = torch.zeros(2)
    save_file(state, file)
    with pytest.raises(UserError) as caught:
        from_hf(tmp_path / "hf", tmp_path / "in")
    lines = str(caught.value).splitlines()
    assert "model.norm.weight is missing" in " ".join(lines)
    assert "model.layers.1.mlp.up_proj.weight is missing" in " ".join(lines)
    assert "model.layers.0.extra.weight is not part of this architecture" in " ".join(lines)
    assert "other is not part of this architecture" in " ".join(lines)
    assert len(lines) == 5


def test_a_tied_head_that_is_not_there(tmp_path: Path) -> None:
    causal_model("llama", tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    state = load_file(file)
    del state["lm_head.weight"]
    save_file(state, file)
    edited(tmp_path / "hf", tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lm_head\.weight is missing, though the head is not tied"):
        from_hf(tmp_path / "hf", tmp_path / "in")
