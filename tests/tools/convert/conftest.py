"""Checkpoints to convert: small random models, written as training writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import logits_of
from small_models import configured, random_weights, run_of, save_weights
from torch import Tensor
from transformers import dynamic_module_utils

from data_pipeline.tokenizer import load_tokenizer
from model.networks.base import Network
from model.networks.build import build
from pretrain.checkpoint.weights import load_denoiser


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Network]]:
    """A checkpoint of a random denoiser, and the denoiser."""

    def save(
        folder: str = "checkpoint",
        seed: int = 0,
        corpus: Path | str = "unknown",
        shard_bytes: int = 20_000,
        **settings: Any,
    ) -> tuple[Path, Network]:
        denoiser = random_weights(build(configured(**settings)), seed)
        save_weights(tmp_path / folder, denoiser, run_of(denoiser.config, corpus), shard_bytes)
        return tmp_path / folder, denoiser

    return save


@pytest.fixture
def on_corpus(saved, corpus: Path) -> tuple[Path, Network]:
    """A checkpoint whose vocabulary is that of the demo corpus."""
    tokenizer = load_tokenizer(corpus)
    found: tuple[Path, Network] = saved(
        vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, corpus=corpus
    )
    return found


@pytest.fixture
def ids_of() -> Callable[..., Tensor]:
    """Random ids ``[rows, length]`` below a number."""

    def draw(num_ids: int, rows: int = 3, length: int = 12) -> Tensor:
        return torch.randint(num_ids, (rows, length), generator=torch.Generator().manual_seed(1))

    return draw


@pytest.fixture
def our_logits() -> Callable[..., Tensor]:
    """Logits of the whole denoiser, ``[B, L, V]``, of the ids of the tokenizer."""

    @torch.no_grad()
    def run(denoiser: Network, ids: Tensor, level: float = 0.5) -> Tensor:
        out = logits_of(denoiser, ids, torch.full((len(ids), 1), level)).unflatten(0, ids.shape)
        return out[..., : denoiser.config.vocab_size]

    return run


@pytest.fixture
def loaded() -> Callable[[Path], Network]:
    """The denoiser of a checkpoint, as every tool loads it."""
    return lambda path: load_denoiser(path, "ema").denoiser


@pytest.fixture(scope="session", autouse=True)
def remote_code_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """transformers copies modelling code into a cache, which is not to be the user's."""
    dynamic_module_utils.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("modules"))
