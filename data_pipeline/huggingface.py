"""A tokenizer in Hugging Face's `tokenizer.json` form, adopted as it is.

Its own truncation, padding and special-token templates are switched off, and so is the
reading of special tokens out of the text: a document that mentions `<|endoftext|>` does not
end there (`unspellable.py`). Whether it is lossless is its author's choice, so it is tested on
every corpus.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tokenizers

from configs.errors import UserError
from data_pipeline.special_tokens import check_encoded, find_special_ids
from data_pipeline.unspellable import unspellable_json

_UNKNOWN = ("<unk>", "[UNK]")


class HuggingFaceTokenizer:
    """A `tokenizer.json`; see `tokenizer.Tokenizer` for what each member means.

    Attributes:
        unread: names of the pieces that no text gives.

    Raises:
        UserError: the file is no tokenizer, or it has no BOS or no EOS.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self._path = path
        with _explained(path, "not a Hugging Face tokenizer.json"):
            # As it is, for its names and for decoding; what encodes is made of it below.
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
            vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
            added = self._tokenizer.get_added_tokens_decoder()
            # The largest id decides, not their number: vocabularies may have holes.
            self.vocab_size = 1 + max(vocabulary.values())
        self.sha256 = hashlib.sha256(content).hexdigest()
        # Asked by id, the library gives a normalised token as the normaliser would write it.
        self._added = {index: token.content for index, token in added.items()}
        by_name = {name: index for index, name in self._added.items()}
        self._special = find_special_ids(
            path, id_of=self._tokenizer.token_to_id, customary_id_of=by_name.get, own={}
        )
        self.bos_id, self.eos_id = self._special.bos, self._special.eos
        self.pad_id, self.mask_id = self._special.pad, self._special.mask
        self._dropped = self._special.ids
        self.unk_id = self._unknown_id(content)
        reserved = {index for index, token in added.items() if token.special}
        reserved |= self._special.ids | ({self.unk_id} if self.unk_id is not None else set())
        with _explained(path, "not a Hugging Face tokenizer.json"):
            self.unread = [self.id_to_piece(index) for index in sorted(reserved)]
            self._encoder = unspellable_json(content, self.unread)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`.

        Raises:
            UserError: the tokenizer fails on a text, or its unknown token is a special one.
        """
        with _explained(self._path, "fails to encode a text"):
            encodings = self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)
        encoded = [encoding.ids for encoding in encodings]
        check_encoded(self._path, encoded, self._special)
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        kept = [i for i in map(int, ids) if i < self.vocab_size and i not in self._dropped]
        with _explained(self._path, "fails to decode ids"):
            return self._tokenizer.decode(kept, skip_special_tokens=True)

    def id_to_piece(self, index: int) -> str:
        """See `Tokenizer.id_to_piece`; holes of the vocabulary are empty."""
        index = int(index)
        return self._added.get(index) or self._tokenizer.id_to_token(index) or ""

    def _unknown_id(self, content: bytes) -> int | None:
        """The model's own token for what it does not know, else one of a customary name."""
        model = json.loads(content)["model"]
        index = model.get("unk_id")
        if index is None:
            names = [model.get("unk_token"), *_UNKNOWN]
            found = (self._tokenizer.token_to_id(name) for name in names if name is not None)
            index = next((number for number in found if number is not None), None)
        return index


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """UserError for whatever the binding raises: Exception itself, or a panic, which is none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{path}: {what} ({error})") from error
