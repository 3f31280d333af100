"""Directories from elsewhere: one error for whatever is not as it should be, no traceback."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from configs.errors import RunError, UserError
from pretrain.checkpoint.weights import configuration
from tools.convert.__main__ import main
from tools.convert.format import Options
from tools.convert.from_hf import from_hf
from tools.convert.tensors import of_path
from tools.convert.to_hf import RUN_FILE, to_hf

JUNK: list[Any] = [None, True, 0, -1, 1, 3, 10**30, 2**31, 1.5, float("nan"), float("inf"), "", "x"]
JUNK += [[], [1], ["x"], {}, {"a": 1}, [[[]]], "\ud800", "9" * 30]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "file", ["../other.bin", "/etc/passwd", "a/../../b", "sub/x.bin", "..", "", "a\\b", 3, None, []]
)
def test_an_index_names_files_beside_it(tmp_path: Path, suffix: str, file: Any) -> None:
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    save_file({"a": torch.ones(2)}, tmp_path / "other.bin")
    folder = tmp_path / "in"
    folder.mkdir()
    index = {"weight_map": {"a": file}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"weight_map (has a in|is not a file name)"):
        of_path(folder)


@pytest.mark.parametrize("content", ["[]", "{", "\xff", '{"weight_map": []}', "[" * 100_000, "7"])
def test_an_index_of_another_shape_is_one_error(tmp_path: Path, content: str, capsys) -> None:
    (tmp_path / "in").mkdir()
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_bytes(content.encode("latin-1"))
    assert main(["from-hf", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert index.name in error


def test_links_within_a_cache_are_followed(tmp_path: Path) -> None:
    """As the hub's client lays files out."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "in").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "blobs" / "5f")
    (tmp_path / "in" / "model-1.safetensors").symlink_to(tmp_path / "blobs" / "5f")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "in" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert of_path(tmp_path / "in").shapes == {"a": (2,)}


LLAMA = {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", "head_bias": False}
FIELDS: dict[str, tuple[str, ...]] = {
    "palimpsest": ("denoiser", "model_type", "architectures", "mask_token_id", "vocab_size"),
    "mdlm": ("mask_index", "n_heads", "dropout", "time_conditioning", "model_length"),
    "llada": (
        *("d_model", "n_layers", "n_heads", "n_kv_heads", "mlp_hidden_size", "rope_theta"),
        *("mask_token_id", "max_sequence_length", "rms_norm_eps", "weight_tying"),
    ),
    "llama": (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_parameters", "rope_theta"),
        *("tie_word_embeddings", "mlp_bias", "hidden_act", "max_position_embeddings"),
    ),
    "bert": (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
        *("max_position_embeddings", "layer_norm_eps", "is_decoder", "hidden_dropout_prob"),
    ),
}


SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 20}
KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "bert": (BertConfig, BertForMaskedLM),
}


def tried(source: Path, out: Path) -> None:
    """It comes in, or it is one error."""
    with suppress(UserError, RunError):
        from_hf(source, out)
        return
    assert not out.exists()


@pytest.mark.parametrize("layout", FIELDS)
def test_a_config_of_other_kinds_is_one_error(saved, tmp_path: Path, layout: str) -> None:
    if layout in KINDS:
        config, kind = KINDS[layout]
        kind(config(**SIZES)).save_pretrained(tmp_path / "hf")
        (tmp_path / "hf" / "vocab.txt").write_text("[UNK]\n[MASK]\n")
    else:
        checkpoint, _ = saved(num_layers=1, **(LLAMA if layout == "llada" else {}))
        to_hf(checkpoint, tmp_path / "hf", format_name=layout)
    file = tmp_path / "hf" / "config.json"
    whole = json.loads(file.read_text())
    generator = random.Random(0)
    number = 0
    for name in FIELDS[layout]:
        for value in generator.sample(JUNK, 7):
            file.write_text(json.dumps({**whole, name: value}))
            tried(tmp_path / "hf", tmp_path / f"out-{number}")
            number += 1
    if layout == "palimpsest":
        for name in whole["denoiser"]:
            for value in generator.sample(JUNK, 2):
                file.write_text(
                    json.dumps({**whole, "denoiser": {**whole["denoiser"], name: value}})
                )
                tried(tmp_path / "hf", tmp_path / f"out-{number}")
                number += 1
    for text in ("", "[]", "nul", "\ud800", "[" * 100_000):
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(UserError, match=r"config\.json"):
            from_hf(tmp_path / "hf", tmp_path / "out")


def test_every_wrong_entry_is_named_at_once(saved, tmp_path: Path) -> None:
    checkpoint, _ = saved(**LLAMA)
    to_hf(checkpoint, tmp_path / "hf", format_name="llada")
    file = tmp_path / "hf" / "config.json"
    whole = json.loads(file.read_text())
    changes = {"d_model": "x", "n_layers": 10**9, "rope_theta": [1], "weight_tying": "no"}
    file.write_text(json.dumps({**whole, **changes}))
    with pytest.raises(UserError) as caught:
        from_hf(tmp_path / "hf", tmp_path / "out")
    assert all(name in str(caught.value) for name in changes)


@pytest.mark.parametrize("name", ["config", "step", "tokens_seen", "score", "code"])
def test_a_damaged_word_on_the_run_is_one_error(saved, tmp_path: Path, name: str) -> None:
    checkpoint, _ = saved(num_layers=1)
    to_hf(checkpoint, tmp_path / "hf")
    file = tmp_path / "hf" / RUN_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), name: ["x"]}))
    with pytest.raises(UserError, match=f"is damaged at {name}"):
        from_hf(tmp_path / "hf", tmp_path / "out")


@pytest.mark.parametrize("packing", ["wrap", "pad"])
def test_public_weights_of_padded_sentences(saved, tmp_path: Path, packing: str) -> None:
    """As on LM1B: the public code masks padding, and so does whoever evaluates or goes on."""
    checkpoint, _ = saved(num_layers=1)
    to_hf(checkpoint, tmp_path / "hf", format_name="mdlm")
    weights, out = str(tmp_path / "hf" / "model.safetensors"), tmp_path / "in"
    words = ["--heads", "4", "--length", "32", "--packing", packing]
    assert main(["from-hf", weights, str(out), *words]) == 0
    config = configuration(out)
    assert (config.data.packing, config.data.sequence_length) == (packing, 32)
    assert config.objective.padding == "masked"
    from_hf(tmp_path / "hf", tmp_path / "whole", options=Options(packing="pad"))
    assert configuration(tmp_path / "whole").data.packing == "pad"


def test_a_length_that_nothing_says(saved, tmp_path: Path, capsys, loaded) -> None:
    checkpoint, _ = saved(num_layers=1)
    to_hf(checkpoint, tmp_path / "hf", format_name="mdlm")
    weights = str(tmp_path / "hf" / "model.safetensors")
    for words, length in (([], 1024), (["--length", "77"], 77)):
        out = tmp_path / f"in-{length}"
        assert main(["from-hf", weights, str(out), "--heads", "4", *words]) == 0
        state = json.loads((out / "state.json").read_text())
        assert state["config"]["data"]["sequence_length"] == length
        said = capsys.readouterr().out
        assert ("is not known: recorded as 1,024, and --length N" in said) == (length == 1024)
    from_hf(tmp_path / "hf", tmp_path / "whole", options=Options(length=50))
    state = json.loads((tmp_path / "whole" / "state.json").read_text())
    assert state["config"]["data"]["sequence_length"] == 50


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.txt", b"\xff\xfe"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"added_tokens": {"a": 1}}'),
        ("tokenizer.json", b'{"added_tokens": [7, {"content": "[MASK]"}]}'),
        ("tokenizer.json", b'{"added_tokens": [{"content": "[MASK]", "id": "x"}]}'),
    ],
    ids=str,
)
def test_a_damaged_tokenizer_beside_bert_is_one_error(
    tmp_path: Path, name: str, content: bytes
) -> None:
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer.json|vocab.txt|which id is \[MASK\]"):
        from_hf(tmp_path / "hf", tmp_path / "out")
