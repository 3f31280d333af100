"""A corpus of a text file, for held-out numbers of other texts than the run's own (zero-shot).

The corpus is temporary: links to the run's tokenizer and training split, whose unigram is the
baseline, and a split made of the file. It is made once, before ranks start.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import UserError
from data_pipeline.detokenize import DETOKENIZERS
from data_pipeline.reading_options import add_reading_options, documents_of
from data_pipeline.shards import write_split
from data_pipeline.sources import Documents
from data_pipeline.special_tokens import SIDECAR
from data_pipeline.tokenizer import load_tokenizer, tokenizer_file
from pretrain.checkpoint.weights import config_of, open_reader
from pretrain.data import corpus_path, other_tokenizer

SPLIT = "zero-shot"
"""Name of the split that is made of the text."""


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """``--text`` and how it is read."""
    options = parser.add_argument_group("held-out numbers of another text (zero-shot)")
    options.add_argument(
        "--text",
        metavar="FILE",
        help="score this file in the place of a split: text, JSON lines, CSV, TSV, Parquet or "
        "Arrow, or a quoted pattern of such files; by the run's tokenizer, in a temporary corpus",
    )
    add_reading_options(options)
    options.add_argument(
        "--detokenize",
        choices=sorted(DETOKENIZERS),
        metavar="SET",
        help="undo the tokenisation of a published set, as its evaluations do: "
        + ", ".join(sorted(DETOKENIZERS)),
    )


def check_text(arguments: argparse.Namespace) -> None:
    """UserError for options that do not fit one another."""
    if arguments.text is None:
        if arguments.detokenize is not None:
            raise UserError("--detokenize is for --text FILE: a corpus is scored as it is")
    elif arguments.split is not None:
        raise UserError("--text takes the place of --split; give one of the two")
    else:
        _documents(arguments)  # names files that do not exist


def _documents(arguments: argparse.Namespace) -> Documents:
    try:
        return documents_of(arguments, [arguments.text])
    except UserError as error:
        raise UserError(f"--text {error}") from error


@contextmanager
def text_corpus(arguments: argparse.Namespace, *, shown: bool) -> Iterator[Path | None]:
    """A corpus with the split :data:`SPLIT` while the context lasts; None without ``--text``.

    Args:
        shown: show progress.

    Raises:
        UserError: the text cannot be read, holds no document, or the run's corpus is not at hand.
    """
    if arguments.text is None:
        yield None
        return
    reader = open_reader(arguments.run)
    config = config_of(reader)
    own = corpus_path(config)
    tokenizer = load_tokenizer(own)
    if wrong := other_tokenizer(tokenizer, own, reader.state.get("tokenizer_sha256")):
        raise UserError(f"{wrong}; put the corpus back that {reader.path} names")
    train = own / config.data.train_split
    if not train.is_dir():
        raise UserError(f"{own}: has no split '{train.name}', whose unigram is the baseline")
    with tempfile.TemporaryDirectory(prefix="palimpsest-text-") as directory:
        corpus = Path(directory)
        for path in (tokenizer_file(own), own / SIDECAR, train):
            if path.exists():
                (corpus / path.name).symlink_to(path.resolve())
        documents = _documents(arguments)
        detokenize: Any = DETOKENIZERS.get(arguments.detokenize, str)
        write_split(
            filter(str.strip, map(detokenize, documents)),
            tokenizer,
            corpus / SPLIT,
            skipped=documents.skipped,
            progress=shown,
        )
        yield corpus
