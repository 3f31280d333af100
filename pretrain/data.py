"""The corpus of a run: training stream, held-out windows, statistics, and their checks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.errors import UserError
from data_pipeline.demo import prepare_demo
from data_pipeline.loader import Stream
from data_pipeline.packing import Packing, pack
from data_pipeline.pairs import Pairs
from data_pipeline.paragraphs import Paragraphs
from data_pipeline.reverse_complement import ReverseComplements
from data_pipeline.shards import Split, open_split
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from data_pipeline.windows import Windows, held_out
from model.draws import Draws
from model.facts import Facts
from pretrain.config import RunConfig

Samples = Packing | Paragraphs | Pairs


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything that is read from disk while a run trains.

    Args:
        path: of the corpus directory.
        stream: the endless training stream.
        windows: the held-out split in windows for a bound; None without split or bound.
        held_out: without a bound, the held-out split as a stream, and its number of samples.
        document_of: document of each held-out sample, ``[samples]`` in the stream's order.
        notes: warnings about the samples.
    """

    path: Path
    tokenizer: Tokenizer
    train: Split
    stream: Stream
    valid: Split | None
    windows: Windows | None = None
    held_out: tuple[Stream, int] | None = None
    document_of: Callable[[], np.ndarray] | None = None
    notes: tuple[str, ...] = ()

    def batch(self, positions: range, device: torch.device) -> dict[str, Tensor]:
        """Samples at positions of the training stream, on a device."""
        samples = self.stream.batch(np.array(positions))
        return {key: value.to(device) for key, value in samples.items()}

    @property
    def facts(self) -> Facts:
        """Statistics of the training split, counted when they are first used."""
        train = self.train
        return Facts(
            lambda: torch.from_numpy(train.counts()), lambda: torch.from_numpy(train.lengths())
        )


def corpus_path(config: RunConfig) -> Path:
    """The corpus directory; prepares the demo corpus if it does not exist yet."""
    if config.data.corpus != "demo":
        return Path(config.data.corpus)
    vocab_size = config.model.vocab_size
    return prepare_demo(Path(config.data.demo_dir) / f"demo-{vocab_size}", vocab_size)


def other_tokenizer(tokenizer: Tokenizer, corpus: Path, trained: str | None) -> str | None:
    """An error where weights were trained with another tokenizer than the corpus's.

    Other checks cannot tell vocabularies of the same size apart.

    Args:
        trained: SHA-256 of the tokenizer of the weights; None where it is not known.
    """
    if trained in (None, tokenizer.sha256):
        return None
    return (
        f"the tokenizer of {corpus} is not the one that the weights were trained with: "
        f"SHA-256 {tokenizer.sha256[:12]}..., not {trained[:12]}..."
    )


def open_corpus(config: RunConfig, draws: Draws) -> Corpus:
    """Open both splits.

    Raises:
        UserError: where the corpus is missing or damaged, or does not fit the model.
    """
    path = corpus_path(config)
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size != config.model.vocab_size:
        raise UserError(
            f"model.vocab_size is {config.model.vocab_size}, but the tokenizer of {path} has "
            f"{tokenizer.vocab_size} ids; set model.vocab_size={tokenizer.vocab_size}"
        )
    if tokenizer.mask_id != config.model.mask_id:
        raise UserError(
            f"model.mask_id is {config.model.mask_id}, but the tokenizer of {path} has "
            f"{tokenizer.mask_id}; set model.mask_id={tokenizer.mask_id}"
        )
    length = config.data.sequence_length
    train = open_split(path, config.data.train_split, tokenizer=tokenizer)
    valid = None
    if (path / config.data.valid_split).exists():
        valid = open_split(path, config.data.valid_split, tokenizer=tokenizer)
    elif config.eval.every:
        raise UserError(
            f"eval.every is {config.eval.every}, but {path} has no split "
            f"'{config.data.valid_split}'; make one with `python -m data_pipeline tokenize`, "
            "or set eval.every=0"
        )
    samples = _training_samples(config, train, tokenizer, draws)
    stream, notes = Stream(samples, draws.key("permutation")), _notes(samples)
    opened = partial(
        Corpus, path=path, tokenizer=tokenizer, train=train, stream=stream, valid=valid
    )
    if valid is None:
        return opened(notes=notes)
    if config.objective.bound is not None and not config.data.has_source:
        how: Any = config.data.packing
        windows = held_out(valid, length, how, segments=config.data.document_mask)
        return opened(windows=windows, notes=notes)
    held_draws = replace(draws, split="valid")
    samples = _samples(config, valid, held_draws)
    held = Stream(samples, held_draws.key("permutation"))
    return opened(
        held_out=(held, len(samples)),
        document_of=partial(_documents, samples, held),
        notes=notes + _notes(samples),
    )


def _documents(samples: Samples, stream: Stream) -> np.ndarray:
    """Document of every sample, in the order of the stream's first epoch."""
    return samples.document_of(stream.sample_indices(np.arange(len(samples))))


def _notes(samples: Samples) -> tuple[str, ...]:
    return tuple(samples.notes) if isinstance(samples, Pairs) else ()


def _training_samples(
    config: RunConfig, split: Split, tokenizer: Tokenizer, draws: Draws
) -> Samples:
    """The samples of the training split, some of them from the other strand of DNA if asked for."""
    samples = _samples(config, split, draws)
    rate = config.data.reverse_complement
    if not rate or isinstance(samples, Paragraphs | Pairs):
        return samples
    return ReverseComplements(samples, split, tokenizer, rate=rate, uniforms=draws)


def _samples(config: RunConfig, split: Split, draws: Draws) -> Samples:
    """The samples of a split, by the packing of the configuration."""
    data = config.data
    how: Any = data.packing
    if data.source_length is None:
        return pack(split, data.sequence_length, how, segments=data.document_mask)
    if data.packing == "pairs":
        return Pairs(split, source_length=data.source_length, sequence_length=data.sequence_length)
    return Paragraphs(
        split,
        data.paragraphs,
        source_length=data.source_length,
        sequence_length=data.sequence_length,
        mask=config.model.mask,
        uniforms=draws,
    )
