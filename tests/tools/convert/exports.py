"""Small exports, and rows padded in every way."""

from pathlib import Path
from typing import Any

import torch
from small_models import configured, random_weights, run_of, save_weights
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from model.networks.build import build
from tools.convert.to_hf import to_hf

LLAMA: dict[str, Any] = {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm"}
LLAMA |= {"shifted_output": True, "num_kv_heads": 2}
BERT: dict[str, Any] = {
    "name": "transformer",
    "norm_first": False,
    "norm_bias": True,
    "qkv_bias": True,
    "gelu": "erf",
}
BERT |= {"attention_bias": True, "num_positions": 40, "tied_head": True, "head_bias": True}
DENOISERS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "bert": BERT,
    "time": {"time_conditioning": True, "shifted_output": True},
    "tied": {"tied_head": True, "mask_id": 3},
}
LEARNED = {"projection": "tanh", "time": "additive", "positions": "learned"}
GENIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rotary": ({"output": "mixture"}, {}),
    "learned": ({**LEARNED, "ignore_source_padding": True}, {"prediction": "v"}),
    "drafts": ({"self_conditioning": True, "encoder": "bert"}, {"self_conditioning": 0.5}),
}
PAD = 1


def export_denoiser(folder: Path, corpus: Path | str = "unknown", **settings: Any) -> Path:
    """The directory of an exported random denoiser."""
    folder.mkdir(parents=True, exist_ok=True)
    denoiser = random_weights(build(configured(**settings)))
    save_weights(folder / "ckpt", denoiser, run_of(denoiser.config, corpus), 2**20)
    to_hf(folder / "ckpt", folder / "out")
    return folder / "out"


def export_genie(folder: Path, name: str, **settings: Any) -> Path:
    """The directory of an exported random encoder-decoder; sources of 9, targets of 7."""
    folder.mkdir(parents=True, exist_ok=True)
    shape, objective = GENIES[name]
    sizes = {"num_encoder_layers": 2, "embedding_width": 12, "max_positions": 20}
    config = configured(name="encoder_decoder", **sizes, **shape, **settings)
    network = random_weights(build(config))
    blocks = {
        "objective": {"name": "genie", "num_steps": 40, **objective},
        "data": {"packing": "pairs", "source_length": 9, "sequence_length": 7},
    }
    save_weights(folder / "ckpt", network, run_of(network.config, **blocks), 2**20)
    to_hf(folder / "ckpt", folder / "out")
    return folder / "out"


def masked_lm(path: Path, kind: Any = AutoModelForMaskedLM, **settings: Any) -> Any:
    return kind.from_pretrained(path, trust_remote_code=True, **settings).eval()


def seq2seq_lm(path: Path, **settings: Any) -> Any:
    model = masked_lm(path, AutoModelForSeq2SeqLM, **settings)
    model.config.pad_token_id = PAD
    return model


def some_ids(rows: int = 3, length: int = 9, seed: int = 1) -> Tensor:
    """Random ids of tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, 90, (rows, length), generator=generator)


def padded(texts: list[Tensor], where: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Texts in rows ``[B, length]``, each with its padding left, right or inside; and the mask."""
    ids = torch.full((len(texts), length), PAD)
    mask = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, (text, how) in enumerate(zip(texts, where, strict=True)):
        n = len(text)
        place = torch.arange(n)
        if how == "left":
            place = place + length - n
        elif how == "inside":
            place[n // 2 :] += length - n
        ids[row, place], mask[row, place] = text, 1
    return ids, mask
