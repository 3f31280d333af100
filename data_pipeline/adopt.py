"""Put a tokenizer into a corpus directory: trained on its text, made of an alphabet, or copied."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.errors import UserError
from data_pipeline.characters import ALPHABETS, write_character_tokenizer
from data_pipeline.special_tokens import SIDECAR, read_sidecar, write_sidecar
from data_pipeline.tokenizer import (
    FILE_NAMES,
    Tokenizer,
    load_tokenizer,
    tokenizer_file,
    train_sentencepiece,
)


def train_tokenizer(documents: Iterable[str], corpus: Path, vocab_size: int) -> Tokenizer:
    """Train CORPUS/tokenizer.model; the directory is made if need be.

    Raises:
        UserError: CORPUS has a tokenizer, or the vocabulary does not fit the documents.
    """
    _refuse_second(corpus)
    with _temporary_directory(corpus) as workshop:
        train_sentencepiece(documents, workshop / "tokenizer.model", vocab_size)
        return _install(workshop, corpus)


def make_character_tokenizer(alphabet: str, corpus: Path) -> Tokenizer:
    """Make CORPUS/tokenizer.json, the characters of a named alphabet (`characters.ALPHABETS`).

    Raises:
        UserError: CORPUS has a tokenizer.
    """
    _refuse_second(corpus)
    with _temporary_directory(corpus) as workshop:
        write_character_tokenizer(workshop / "tokenizer.json", ALPHABETS[alphabet])
        return _install(workshop, corpus)


def adopt_tokenizer(
    source: Path, corpus: Path, *, bos_token: str | None = None, eos_token: str | None = None
) -> Tokenizer:
    """Copy a tokenizer into CORPUS and write down which tokens are special.

    Args:
        source: a `tokenizer.json` or SentencePiece file, or a directory that holds one; a
            `tokenizer_config.json` beside it is believed.
        corpus: the corpus directory, made if need be.
        bos_token: the token that begins a text, where neither name nor file determines it.
        eos_token: the token that ends one.

    Raises:
        UserError: CORPUS has a tokenizer; the source has none, or no BOS or EOS.
    """
    _refuse_second(corpus)
    if not source.exists():
        raise UserError(f"{source}: no such file; a tokenizer.json or .model file is expected")
    file = tokenizer_file(source)
    named = {"bos_token": bos_token, "eos_token": eos_token}
    name = "tokenizer.json" if file.suffix == ".json" else "tokenizer.model"
    with _temporary_directory(corpus) as workshop, _errors_name(file, copy := workshop / name):
        shutil.copyfile(file, copy)
        sidecar = read_sidecar(file.with_name(SIDECAR))
        sidecar |= {role: token for role, token in named.items() if token is not None}
        write_sidecar(workshop / SIDECAR, sidecar)
        tokenizer = load_tokenizer(copy)
        found = {
            "bos_token": tokenizer.bos_id,
            "eos_token": tokenizer.eos_id,
            "pad_token": tokenizer.pad_id,
            "mask_token": tokenizer.mask_id,
        }
        pieces = {
            role: tokenizer.id_to_piece(index) for role, index in found.items() if index is not None
        }
        write_sidecar(workshop / SIDECAR, pieces)
        return _install(workshop, corpus)


def _refuse_second(corpus: Path) -> None:
    for name in (*FILE_NAMES, SIDECAR):
        if os.path.lexists(corpus / name):
            raise UserError(
                f"{corpus / name}: exists already, and splits depend on it; choose another --out, "
                "or remove it"
            )


@contextmanager
def _errors_name(file: Path, copy: Path) -> Iterator[None]:
    """Replace the path of our copy in error messages by that of the user's file."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(copy), str(file))) from error


@contextmanager
def _temporary_directory(corpus: Path) -> Iterator[Path]:
    """A temporary directory inside `corpus`, from which files move by a rename."""
    corpus.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=corpus, prefix=".tokenizer-") as name:
            yield Path(name)
    except BaseException:
        with suppress(OSError):  # only if nothing else is in it
            corpus.rmdir()
        raise


def _install(workshop: Path, corpus: Path) -> Tokenizer:
    load_tokenizer(workshop)  # what cannot be used as it will lie there is not put there
    _refuse_second(corpus)  # another process may have been faster
    # The tokenizer's own file moves last: where it is, its sidecar is too.
    for file in sorted(workshop.iterdir(), key=lambda file: file.name in FILE_NAMES):
        file.replace(corpus / file.name)
    return load_tokenizer(corpus)
