"""Checkpoints to convert: small random models, written as training writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import dynamic_module_utils

from configs.load import validate
from data_pipeline.tokenizer import load_tokenizer
from model.config import ModelConfig
from model.denoiser import Denoiser
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from tools.convert import write
from tools.convert.tensors import of_dict

MODEL: dict[str, Any] = {"vocab_size": 90, "width": 32, "num_layers": 2, "num_heads": 4}
MODEL["conditioning_width"] = 16


def random_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """Every weight moved, so that no branch is closed and no two conversions look alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return denoiser.eval()


def run_of(model: ModelConfig, corpus: Path | str = "unknown") -> RunConfig:
    plain = {
        "steps": 10,
        "global_batch": 4,
        "objective": {"name": "mdlm"},
        "data": {"corpus": str(corpus), "sequence_length": 32},
        "model": dict(vars(model)),
    }
    return validate(RunConfig, plain, where="the test's run")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, Denoiser]]:
    """A checkpoint of a random denoiser, and the denoiser."""

    def save(
        name: str = "checkpoint",
        seed: int = 0,
        corpus: Path | str = "unknown",
        shard_bytes: int = 20_000,
        **settings: Any,
    ) -> tuple[Path, Denoiser]:
        denoiser = random_weights(Denoiser(ModelConfig(**{**MODEL, **settings})), seed)
        values = {n: p.detach() for p, n in denoiser.parameter_names().items()}
        run = run_of(denoiser.config, corpus)
        state = write.state_of(run, step=7, tokens_seen=896, facts={"score": 4.25})
        write.write_checkpoint(tmp_path / name, of_dict(values, name), state, shard_bytes)
        return tmp_path / name, denoiser

    return save


@pytest.fixture
def on_corpus(saved, corpus: Path) -> tuple[Path, Denoiser]:
    """A checkpoint whose vocabulary is that of the demo corpus."""
    tokenizer = load_tokenizer(corpus)
    found: tuple[Path, Denoiser] = saved(
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
    def run(denoiser: Denoiser, ids: Tensor, level: float = 0.5) -> Tensor:
        out = denoiser(ids, torch.full((len(ids), 1), level)).unflatten(0, ids.shape)
        return out[..., : denoiser.config.vocab_size]

    return run


@pytest.fixture
def loaded() -> Callable[[Path], Denoiser]:
    """The denoiser of a checkpoint, as every tool loads it."""
    return lambda path: load_denoiser(path, "ema").denoiser


@pytest.fixture(scope="session", autouse=True)
def remote_code_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """transformers copies modelling code into a cache, which is not to be the user's."""
    dynamic_module_utils.HF_MODULES_CACHE = str(tmp_path_factory.mktemp("modules"))
