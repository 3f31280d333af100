"""A tokenizer in Hugging Face's `tokenizer.json` form, adopted as it is.

Its own truncation, padding and special-token templates are switched off, and so is the
reading of special tokens out of the text: a document that mentions `<|endoftext|>` does not
end there. Whether it is lossless is its author's choice, so it is tested on every corpus.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import tokenizers

from configs.errors import UserError
from data_pipeline.special_tokens import find_special_ids

_UNKNOWN = ("<unk>", "[UNK]")


class HuggingFaceTokenizer:
    """A `tokenizer.json`; see `tokenizer.Tokenizer` for what each member means.

    Raises:
        UserError: the file is no tokenizer, or it has no BOS or no EOS.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the binding raises Exception itself
            raise UserError(f"{path}: not a Hugging Face tokenizer.json ({error})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.sha256 = hashlib.sha256(content).hexdigest()
        # The largest id decides, not their number: vocabularies may have holes.
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        added = {
            token.content: index
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        special = find_special_ids(
            path, id_of=self._tokenizer.token_to_id, customary_id_of=added.get, own={}
        )
        self.bos_id, self.eos_id, self.pad_id = special.bos, special.eos, special.pad
        self.mask_id = special.mask
        unknown = (self._tokenizer.token_to_id(name) for name in _UNKNOWN)
        self.unk_id = next((index for index in unknown if index is not None), None)
        self._dropped = {special.bos, special.eos, special.pad, special.mask}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode`."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        kept = [int(i) for i in ids if i < self.vocab_size and i not in self._dropped]
        return self._tokenizer.decode(kept, skip_special_tokens=True)

    def id_to_piece(self, index: int) -> str:
        """See `Tokenizer.id_to_piece`; holes of the vocabulary are empty."""
        return self._tokenizer.id_to_token(int(index)) or ""
