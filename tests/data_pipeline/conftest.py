"""One small corpus in several shards, made once; tests that damage it take a copy."""

import shutil
from pathlib import Path

import pytest

from data_pipeline.demo import demo_documents
from data_pipeline.shards import write_split
from data_pipeline.tokenizer import load_tokenizer, train_sentencepiece


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return [text[:700] + "\n\n    \tindented   " for text in demo_documents()["train"][:40]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    train_sentencepiece(documents, directory / "tokenizer.model", 500)
    tokenizer = load_tokenizer(directory)
    write_split(documents, tokenizer, directory / "train", shard_tokens=2000, progress=False)
    write_split(documents[:3], tokenizer, directory / "valid", progress=False)
    return directory


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))
