"""Check that documents survive encoding and decoding; bits per byte would mislead otherwise.

Decoding costs a third of encoding, so the first million characters are tried whole and then
every tenth document. What the tokenizer does not know is seen in all of them, for nothing:
its unknown token is counted.
"""

import logging
from collections.abc import Sequence

from data_pipeline.tokenizer import Tokenizer, is_lossless

_ALL_OF_FIRST = 2**20  # characters
_THEN_EVERY = 10
_SHOWN = 20  # characters on either side of what was lost

_log = logging.getLogger(__name__)


class RoundTrips:
    """Tries documents as they are written.

    Attributes:
        tried: how many were decoded again; none after the first that was lost.
        first_loss: the number of the first document found that comes back as another text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._documents = self._characters = 0
        self.tried = 0
        self.first_loss: int | None = None

    def add(self, texts: Sequence[str], encoded: Sequence[list[int]]) -> None:
        """Try a sample of the next documents, and warn at the first that does not survive."""
        for text, ids in zip(texts, encoded, strict=True):
            number = self._documents
            self._documents += 1
            self._characters += len(text)
            unknown = self._tokenizer.unk_id is not None and self._tokenizer.unk_id in ids
            chosen = self._characters <= _ALL_OF_FIRST or number % _THEN_EVERY == 0
            if self.first_loss is not None or not (chosen or unknown):
                continue
            self.tried += 1
            if not is_lossless(self._tokenizer, [text], [ids]):
                self.first_loss = number
                self._warn(number, text, self._tokenizer.decode(ids))

    def _warn(self, number: int, text: str, again: str) -> None:
        pairs = zip(text, again, strict=False)
        shared = min(len(text), len(again))
        place = next((i for i, (a, b) in enumerate(pairs) if a != b), shared)
        part = slice(max(0, place - _SHOWN), place + _SHOWN)
        _log.warning(
            "warning: this tokenizer does not give back the text it was given: document %d, from "
            "character %d, %r comes back as %r; bits per byte of this corpus will be wrong",
            number, part.start, text[part], again[part],
        )  # fmt: skip
