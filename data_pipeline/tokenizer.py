"""The tokenizer interface of Palimpsest, and how a tokenizer is loaded.

[MASK] of the discrete processes is not a tokenizer's business: it is id V, one past the
vocabulary, unless the tokenizer has a mask token of its own (`mask_id`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from configs.errors import UserError
from data_pipeline.characters import CharacterTokenizer, is_of_characters
from data_pipeline.huggingface import HuggingFaceTokenizer
from data_pipeline.sentencepiece_model import SentencePieceTokenizer, train_sentencepiece

__all__ = ["Tokenizer", "is_lossless", "load_tokenizer", "tokenizer_file", "train_sentencepiece"]

FILE_NAMES = ("tokenizer.model", "tokenizer.json")


class Tokenizer(Protocol):
    """Text to ids in 0..V-1 and back.

    Attributes:
        vocab_size: V, the number of real ids, special tokens included.
        bos_id, eos_id, pad_id: begin, end, padding (PAD is EOS where the tokenizer has none).
        unk_id: the id of unknown text, None if there is none.
        mask_id: the id of the tokenizer's own mask token, None if it has none.
        sha256: of the tokenizer's file, in hexadecimal.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    unk_id: int | None
    mask_id: int | None
    sha256: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; no special token is added, and none is read out of the text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids; special ids, and ids from V on, are dropped."""
        ...

    def id_to_piece(self, index: int) -> str:
        """The tokenizer's own spelling of an id in 0..V-1."""
        ...


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a SentencePiece `.model` or a Hugging Face `.json` file, or that of a corpus directory.

    Raises:
        UserError: there is none, there are two, or it cannot be used.
    """
    file = tokenizer_file(path)
    if file.suffix != ".json":
        return SentencePieceTokenizer(file)
    return CharacterTokenizer(file) if is_of_characters(file) else HuggingFaceTokenizer(file)


def tokenizer_file(path: Path) -> Path:
    """The tokenizer's file: `path` itself, or the one in the directory `path`.

    Raises:
        UserError: there is none, or there are two.
    """
    if path.is_file():
        return path
    found = [path / name for name in FILE_NAMES if (path / name).is_file()]
    if not found:
        raise UserError(
            f"{path}: no tokenizer here ({' or '.join(FILE_NAMES)}); make one with "
            f"`python -m data_pipeline tokenizer --out {path} ...`"
        )
    if len(found) > 1:
        raise UserError(f"{path}: holds both {' and '.join(FILE_NAMES)}; remove the wrong one")
    return found[0]


def is_lossless(
    tokenizer: Tokenizer, texts: Sequence[str], encoded: Sequence[list[int]] | None = None
) -> bool:
    """Whether every text survives encoding and decoding, without which bits per byte mislead.

    Args:
        encoded: the ids of the texts, if they are known already.
    """
    every = tokenizer.encode(texts) if encoded is None else encoded
    return all(tokenizer.decode(ids) == text for ids, text in zip(every, texts, strict=True))
