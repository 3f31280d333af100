"""Tokenizers of characters: one id for each letter of a named alphabet.

The file is a `tokenizer.json` of words that are one character long, so that other programs read
it and exports take it over. Here a table does the same: the library keeps some 100 bytes for
each token of a text, and a chromosome is a single text of 250 million.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from data_pipeline.huggingface import HuggingFaceTokenizer

ALPHABETS = {
    # The 27 characters of http://mattmahoney.net/dc/textdata.html, as D3PM, SEDD and MDLM read it.
    "text8": " abcdefghijklmnopqrstuvwxyz",
    # The bases, and N for one that is not known.
    "dna": "ACGTN",
}

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
"""Ids 0 to 3, as in the tokenizers trained here; the alphabet follows in its order."""

_CODE_POINTS = "<u4"


class CharacterTokenizer(HuggingFaceTokenizer):
    """A `tokenizer.json` made by `write_character_tokenizer`; other characters are `<unk>`.

    Raises:
        UserError: the file is none of these.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        alphabet = _alphabet(path.read_bytes())
        if alphabet is None:
            raise UserError(f"{path}: no tokenizer of characters")
        self._codes = _code_points(alphabet)
        # One entry more than the largest code point: all that lie above share it.
        self._ids = np.zeros(int(self._codes.max()) + 2, dtype=np.int64)
        self._ids[self._codes] = len(SPECIAL) + np.arange(len(alphabet))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`."""
        last = len(self._ids) - 1
        return [self._ids[np.minimum(_code_points(text), last)].tolist() for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`; unknown characters are dropped too."""
        given = np.asarray(ids, dtype=np.int64)
        kept = given[(given >= len(SPECIAL)) & (given < self.vocab_size)]
        return self._codes[kept - len(SPECIAL)].tobytes().decode("utf-32-le")


def write_character_tokenizer(path: Path, alphabet: str) -> None:
    """Write the `tokenizer.json` of an alphabet: distinct characters, in the order of their ids."""
    assert len(set(alphabet)) == len(alphabet) > 0, alphabet
    path.write_text(json.dumps(_described(alphabet), indent=2) + "\n", encoding="utf-8")


def is_of_characters(path: Path) -> bool:
    """Whether a `tokenizer.json` is one that `write_character_tokenizer` made."""
    return _alphabet(path.read_bytes()) is not None


def _alphabet(content: bytes) -> str | None:
    """The alphabet of a file's content; None if it is another tokenizer's."""
    try:
        found = json.loads(content)
        alphabet = "".join(list(found["model"]["vocab"])[len(SPECIAL) :])
        return alphabet if found == _described(alphabet) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=_CODE_POINTS)


def _described(alphabet: str) -> dict[str, Any]:
    """The tokenizer in Hugging Face's form."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": name, **flags, "special": True}
            for index, name in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {piece: index for index, piece in enumerate([*SPECIAL, *alphabet])},
            "unk_token": SPECIAL[0],
        },
    }
