"""A comparison of two small runs on a small corpus of characters."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_pipeline.adopt import make_character_tokenizer
from data_pipeline.demo import demo_documents, in_letters
from data_pipeline.shards import write_split

SMALL = {
    "precision": "fp32",
    "steps": 4,
    "global_batch": 4,
    "model": {
        "name": "transformer",
        "vocab_size": 31,
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
    },
    "data": {"sequence_length": 24},
    "optim": {"lr": 3e-3},
    "ema": {"decay": 0.5},
    "eval": {"every": 4},
    "log": {"every": 1},
}

RUNS = {
    "diffusion": {"objective": {"name": "mdlm", "schedule": {"name": "loglinear"}}},
    "causal": {"objective": "autoregressive"},
}


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of short documents, in letters."""
    corpus = tmp_path_factory.mktemp("letters") / "corpus"
    tokenizer = make_character_tokenizer("text8", corpus)
    texts = [in_letters(text) for text in demo_documents()["train"]]
    for split, first in (("train", 0), ("valid", 20)):
        documents = [text[: 30 + 7 * k] for k, text in enumerate(texts[first : first + 20])]
        write_split(documents, tokenizer, corpus / split, progress=False)
    return corpus


@pytest.fixture(scope="session")
def file(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a comparison's file: of the two runs, with other blocks instead or besides."""

    def write(**blocks: object) -> Path:
        path = tmp_path_factory.mktemp("file") / "small.yaml"
        plain = {
            "corpus": str(letters),
            "base": SMALL,
            "runs": RUNS,
            "out": str(path.parent / "out"),
            **blocks,
        }
        path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
        return path

    return write
