"""LLaDA's format: a Llama of transformers that sees both ways, under LLaDA's names."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from small_models import random_weights
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from configs.errors import UserError
from tools.convert.from_hf import from_hf
from tools.convert.to_hf import to_hf

CONFIG: dict[str, Any] = {
    "model_type": "llada",
    "architectures": ["LLaDAModelLM"],
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "mlp_hidden_size": 48,
    "vocab_size": 70,
    "embedding_size": 70,
    "mask_token_id": 66,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "weight_tying": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "max_sequence_length": 64,
}
NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}


class Bidirectional(torch.nn.Module):
    """What LLaDA computes, by transformers' Llama with a mask that hides nothing."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        config = LlamaConfig(
            vocab_size=70,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
            attn_implementation="eager",
        )
        self.body = LlamaModel(config)
        self.head = torch.nn.Linear(32, 70, bias=False)
        random_weights(self)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        batch, length = ids.shape
        nothing_hidden = torch.zeros(batch, 1, length, length)
        hidden = self.body(ids, attention_mask=nothing_hidden).last_hidden_state
        return self.head(hidden)

    def as_llada(self) -> dict[str, Tensor]:
        state = self.body.state_dict()
        found = {
            "model.transformer.wte.weight": state["embed_tokens.weight"],
            "model.transformer.ln_f.weight": state["norm.weight"],
            "model.transformer.ff_out.weight": self.head.weight.detach(),
        }
        for index in range(2):
            for theirs, llada in NAMES.items():
                value = state[f"layers.{index}.{theirs}.weight"]
                found[f"model.transformer.blocks.{index}.{llada}.weight"] = value
        return found


def saved_llada(folder: Path, **changes: Any) -> Bidirectional:
    model = Bidirectional()
    folder.mkdir()
    save_file(model.as_llada(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return model


def test_llada_comes_in(tmp_path: Path, loaded, ids_of, our_logits) -> None:
    model = saved_llada(tmp_path / "llada")
    assert from_hf(tmp_path / "llada", tmp_path / "in")["equal"]
    denoiser = loaded(tmp_path / "in")
    assert (denoiser.config.vocab_size, denoiser.config.mask) == (70, 66)
    ids = ids_of(70)
    keep = [i for i in range(70) if i != 66]
    expected = model(ids)
    found = our_logits(denoiser, ids)
    torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)
    assert expected.abs().max() > 1


def test_in_and_out_again_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    model = saved_llada(tmp_path / "llada")
    from_hf(tmp_path / "llada", tmp_path / "in")
    assert to_hf(tmp_path / "in", tmp_path / "out", format_name="llada")["equal"]
    found = load_file(tmp_path / "out" / "model.safetensors")
    expected = model.as_llada()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: config[key] for key in CONFIG} == CONFIG


def test_ours_goes_out_and_comes_in(saved, tmp_path: Path, loaded, ids_of, our_logits) -> None:
    """With a [MASK] of our own, which becomes the last id, and a tied head."""
    settings = {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", "qkv_bias": True}
    for tied in (True, False):
        checkpoint, denoiser = saved(f"c{tied}", tied_head=tied, head_bias=False, **settings)
        to_hf(checkpoint, tmp_path / f"out{tied}", format_name="llada")
        from_hf(tmp_path / f"out{tied}", tmp_path / f"in{tied}")
        back = loaded(tmp_path / f"in{tied}")
        assert back.config.mask == denoiser.config.mask == 90
        ids = ids_of(91)
        assert torch.equal(our_logits(back, ids), our_logits(denoiser, ids))


def test_a_causal_model_that_was_trained_on_goes_out_unless_shifted(saved, tmp_path: Path) -> None:
    settings = {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", "head_bias": False}
    checkpoint, _ = saved(shifted_output=True, qk_norm=True, head_size=16, **settings)
    with pytest.raises(UserError) as caught:
        to_hf(checkpoint, tmp_path / "out", format_name="llada")
    for reason in ("qk_norm is True", "shifted_output is True", "4 heads of 16 are not"):
        assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_type": "sequential"}, "block_type is sequential, and only llama is known"),
        ({"mask_token_id": 70}, "mask_token_id 70 is no id of its vocabulary of 70"),
        ({"n_layers": None}, "lacks n_layers"),
        ({"n_kv_heads": 4}, r"k_proj.weight has shape \[16, 32\], not \[32, 32\]"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved_llada(tmp_path / "llada", **changes)
    with pytest.raises(UserError, match=message):
        from_hf(tmp_path / "llada", tmp_path / "in")


def word_tokenizer(folder: Path, size: int, mask: int | None) -> Path:
    """A tokenizer of so many ids, which may have a mask token of its own."""
    words = {"<s>": 0, "</s>": 1, **{f"w{index}": index for index in range(2, size)}}
    if mask is not None:
        words = {("[MASK]" if index == mask else word): index for word, index in words.items()}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "</s>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>", *(["[MASK]"] if mask is not None else [])])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("size", "said", "own"),
    [(61, 60, 60), (61, 69, None), (60, 65, None), (61, 40, 40), (70, 66, 66), (69, 69, None)],
)
def test_rows_beyond_the_tokenizer_are_left_out(
    tmp_path: Path, loaded, ids_of, our_logits, size: int, said: int, own: int | None
) -> None:
    """``said`` is the row of [MASK], ``own`` its id in the tokenizer, which may have none."""
    model = saved_llada(tmp_path / "llada", mask_token_id=said)
    tokenizer = word_tokenizer(tmp_path / "tokenizer", size, own)
    assert from_hf(tmp_path / "llada", tmp_path / "in", tokenizer=tokenizer)["equal"]
    denoiser = loaded(tmp_path / "in")
    assert (denoiser.config.vocab_size, denoiser.config.mask_id) == (size, own)
    assert denoiser.config.mask == (size if own is None else own)
    ids = ids_of(size)
    ids[:, ::3] = denoiser.config.mask
    theirs = torch.where(ids == denoiser.config.mask, said, ids)
    keep = [index for index in range(size) if index != own]
    found, expected = our_logits(denoiser, ids), model(theirs)
    torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)


def test_the_way_out_of_a_mismatch_is_said(tmp_path: Path) -> None:
    """A tokenizer that holds the mask token and does not say which it is."""
    saved_llada(tmp_path / "llada", mask_token_id=40)
    tokenizer = word_tokenizer(tmp_path / "tokenizer", 61, None)
    with pytest.raises(UserError, match=r'tokenizer_config\.json beside it: {"mask_token": "w40"}'):
        from_hf(tmp_path / "llada", tmp_path / "in", tokenizer=tokenizer)
    (tokenizer / "tokenizer_config.json").write_text('{"mask_token": "w40"}')
    assert from_hf(tmp_path / "llada", tmp_path / "in", tokenizer=tokenizer)["equal"]
    larger = word_tokenizer(tmp_path / "larger", 71, None)
    with pytest.raises(UserError, match="the tokenizer has 71 ids"):
        from_hf(tmp_path / "llada", tmp_path / "other", tokenizer=larger)
