"""Evaluation windows: a split cut into samples that hold each of its tokens exactly once.

They are packed as for training (:mod:`data_pipeline.packing`), but nothing is dropped, and each
window marks which of its positions are scored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from data_pipeline.packing import FRAME, Padded, check_length, framed, segments_of
from data_pipeline.shards import Split


class Windows(Protocol):
    """Numbered windows that hold every token of a split exactly once, for evaluation."""

    @property
    def split(self) -> Split:
        """The split that is cut into windows."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """Windows [start, stop), in batches of windows of one length l.

        tokens    int64 [B, l]  framed by BOS and EOS as in training
        valid     bool  [B, l]  False on padding
        scored    bool  [B, l]  True on the stream's tokens, EOS of documents included
        ending    bool  [B, l]  of padded windows only: True on what the length of the text
                                decides, the EOS after it and the padding
        document  int64 [B, l]  number of the document in the split, -1 where not scored
        segment   int64 [B, l]  of wrapped windows with segments only, as in training
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WrappedWindows:
    """Consecutive pieces of the stream: L-2 tokens each, fewer in the last one.

    The frame is not scored: it stands in the same places in every window.
    """

    split: Split
    sequence_length: int
    segments: bool = False

    def __len__(self) -> int:
        return -(-self.split.num_tokens // (self.sequence_length - FRAME))

    @property
    def num_full(self) -> int:
        """Number of windows that have all L positions."""
        return self.split.num_tokens // (self.sequence_length - FRAME)

    def read(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """See `Windows.read`; the short window is a batch of its own."""
        assert 0 <= start <= stop <= len(self), (start, stop, len(self))
        full_stop = min(stop, self.num_full)
        if start < full_stop:
            yield self._batch(start, full_stop)
        if start < stop and stop > self.num_full:
            yield self._batch(self.num_full, stop)

    def _batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        size = self.sequence_length - FRAME
        first, last = start * size, min(stop * size, self.split.num_tokens)
        tokens = framed(self.split, self.split.tokens(first, last).reshape(stop - start, -1))
        scored = np.zeros(tokens.shape, dtype=bool)
        scored[:, 1:-1] = True
        document = np.full(tokens.shape, -1, dtype=np.int64)
        document[:, 1:-1] = self.split.document_of(first, last).reshape(stop - start, -1)
        valid = np.ones_like(scored)
        found = {"tokens": tokens, "valid": valid, "scored": scored, "document": document}
        return found | (segments_of(self.split, tokens) if self.segments else {})


@dataclass(frozen=True, kw_only=True)
class PaddedWindows:
    """One document a window, cut where it is longer than L-2 tokens, padded as in training.

    The EOS that ends a document is scored; BOS, and the EOS of a cut, are not. Which full
    windows end their document is not scored: evaluation takes it as given.
    """

    padded: Padded

    @property
    def split(self) -> Split:
        """The split that is cut into windows."""
        return self.padded.split

    def __len__(self) -> int:
        return len(self.padded)

    def read(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        """See `Windows.read`."""
        indices = np.arange(start, stop)
        arrays = self.padded.read(indices)
        valid = arrays["valid"]
        documents, ends_document = self.padded.locate(indices)
        scored = valid.copy()
        scored[:, 0] = False
        last = valid.sum(axis=1) - 1
        scored[np.arange(len(indices)), last] = ends_document
        document = np.where(scored, documents[:, None], -1)
        ending = np.arange(valid.shape[1]) >= last[:, None]
        yield {**arrays, "scored": scored, "ending": ending, "document": document}


def held_out(
    split: Split, sequence_length: int, how: Literal["wrap", "pad"], *, segments: bool = False
) -> Windows:
    """Evaluation windows of a split, packed as for training; no token is left out.

    Args:
        segments: number the documents that share a window (wrap).

    Raises:
        UserError: the sequence length is below 3, or every document is empty (pad).
    """
    if how == "pad":
        return PaddedWindows(padded=Padded(split, sequence_length))
    check_length(sequence_length)
    return WrappedWindows(split=split, sequence_length=sequence_length, segments=segments)
