"""The judge that ``--judge`` names: n-grams, a run, or a directory of transformers."""

from pathlib import Path

import torch

from configs.errors import UserError
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import Tokenizer
from pretrain.checkpoint import store
from pretrain.checkpoint.weights import Loaded
from pretrain.data import corpus_path
from tools.evaluate.judges import Judge
from tools.evaluate.judges.exact_run import check_run_judge, run_judge
from tools.evaluate.judges.ngram import ngram_judge
from tools.evaluate.judges.pretrained import CONFIG, pretrained_judge

NGRAM = "ngram"


def check_judge(name: str) -> None:
    """UserError where ``--judge`` names none, before a model is loaded."""
    path = Path(name)
    if name == NGRAM or is_pretrained(path):
        return
    if _is_run(path):
        check_run_judge(path)
        return
    raise UserError(
        f"--judge {name}: no model there; name {NGRAM}, a run with checkpoints, or a directory "
        f"with {CONFIG} and the weights of a causal language model"
    )


def open_judge(
    name: str, loaded: Loaded, tokenizer: Tokenizer, device: torch.device, batch: int
) -> Judge:
    """The judge of a run's texts.

    Args:
        batch: pieces of text per forward pass.

    Raises:
        UserError: it cannot be loaded.
    """
    if is_pretrained(Path(name)):
        return pretrained_judge(Path(name), device, tokenizer.sha256)
    if name != NGRAM:
        return run_judge(Path(name), device, tokenizer.sha256, batch)
    data = loaded.config.data
    train = open_split(corpus_path(loaded.config), data.train_split, tokenizer=tokenizer)
    start = tokenizer.eos_id if data.packing == "pad" else None
    return ngram_judge(train, tokenizer.vocab_size, start=start)


def is_pretrained(path: Path) -> bool:
    """Whether it is a directory of transformers."""
    return (path / CONFIG).is_file()


def _is_run(path: Path) -> bool:
    return (path / store.MANIFEST).is_file() or (path / "checkpoints").is_dir()
