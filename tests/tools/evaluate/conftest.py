"""A small random model on a small corpus, as `python -m tools.evaluate` finds a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_models import configured, random_weights, run_of, save_weights
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from data_pipeline.demo import demo_documents
from data_pipeline.shards import write_split
from data_pipeline.tokenizer import load_tokenizer, tokenizer_file
from model.networks.build import build

LENGTH = 32
"""Positions of a window of the small model."""


@pytest.fixture(scope="session")
def small_corpus(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's tokenizer, and a few short documents of it."""
    own = tmp_path_factory.mktemp("small") / "corpus"
    own.mkdir()
    shutil.copy(tokenizer_file(corpus), own)
    tokenizer, texts = load_tokenizer(own), demo_documents()
    for split, num in (("train", 12), ("valid", 14)):
        documents = [text[: 60 + 13 * k] for k, text in enumerate(texts["train"][:num])]
        write_split(documents, tokenizer, own / split, progress=False)
    return own


@pytest.fixture(scope="session")
def checkpoint(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the checkpoint of a random model of an objective, a packing and the like."""

    def make(**blocks: Any) -> Path:
        network = build(configured(vocab_size=1024, num_layers=1))
        run = run_of(network.config, small_corpus, **blocks)
        path = tmp_path_factory.mktemp("model") / "checkpoint"
        save_weights(path, random_weights(network), run, 2**30)
        return path

    return make


@pytest.fixture(scope="session")
def masked(checkpoint: Callable[..., Path]) -> Path:
    """A masked diffusion model of joined documents."""
    return checkpoint()


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command: its status, its summary if it has one, and its errors."""
    from tools.evaluate import __main__ as evaluate

    def call(*words: object) -> SimpleNamespace:
        status = evaluate.main([str(word) for word in words])
        out, err = capsys.readouterr()
        summary = json.loads(out) if out.startswith("{") else None
        return SimpleNamespace(status=status, summary=summary, err=err)

    return call


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of eight positions over single characters, with BOS."""
    path = tmp_path_factory.mktemp("pretrained")
    letters = {letter: number for number, letter in enumerate("^?abcdefgh \n")}
    made = Tokenizer(models.WordLevel(letters, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="^", unk_token="?").save_pretrained(
        path
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(letters), n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(50)  # far from uniform
    model.save_pretrained(path)
    return path
