"""Packing: how documents become training samples of L positions, wrapped or padded.

`wrap` is MDLM's packing (Sahoo et al. 2024, arXiv:2406.07524, its `wrap: True` data): the
stream, in which EOS ends each document, is cut into pieces of L-2 tokens, each framed by
BOS and EOS; the remainder is dropped. `pad` is that of its LM1B runs: one document a
sample. Both are computed from the sample's number, so there is no index to build or keep.
"""

from typing import Literal, Protocol

import numpy as np

from configs.errors import UserError
from data_pipeline.shards import Split

FRAME = 2  # BOS and EOS


class Packing(Protocol):
    """Numbered samples of a split."""

    def __len__(self) -> int: ...

    def read(
        self, indices: np.ndarray, positions: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Samples [B]: `tokens` int64 [B, L] and `valid` bool [B, L], False on padding.

        With segments, also `segment` int64 [B, L]. They are the same at every position of the
        stream.
        """
        ...

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """The document that each sample [B] begins in: int64 [B]."""
        ...


def pack(
    split: Split, sequence_length: int, how: Literal["wrap", "pad"], *, segments: bool = False
) -> Packing:
    """Pack a split by the packing named ``how``.

    Args:
        segments: number the documents that share a sample (wrap).

    Raises:
        UserError: the sequence length is below 3, or no sample can be filled.
    """
    if how == "wrap":
        return Wrapped(split, sequence_length, segments=segments)
    if how == "pad":
        return Padded(split, sequence_length)
    raise UserError(f"packing '{how}' is unknown; choose wrap or pad")


class Wrapped:
    """Pieces of the stream, L-2 tokens each, between BOS and EOS; all positions are valid.

    Raises:
        UserError: the sequence length is below 3, or longer than the split.
    """

    def __init__(self, split: Split, sequence_length: int, *, segments: bool = False) -> None:
        check_length(sequence_length)
        self._split = split
        self._sequence_length = sequence_length
        self._segments = segments
        if not len(self):
            raise UserError(
                f"{split.directory}: a sequence length of {sequence_length} that no sample can "
                f"fill: the split has {split.num_tokens} tokens; the longest possible is "
                f"{split.num_tokens + FRAME}"
            )

    def __len__(self) -> int:
        return self._split.num_tokens // (self._sequence_length - FRAME)

    def read(
        self, indices: np.ndarray, positions: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """See `Packing.read`."""
        pieces = _stream_pieces(self._split, self._sequence_length - FRAME, indices)
        tokens = framed(self._split, pieces)
        found = {"tokens": tokens, "valid": np.ones_like(tokens, dtype=bool)}
        return found | (segments_of(self._split, tokens) if self._segments else {})

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """See `Packing.document_of`."""
        starts = [int(index) * (self._sequence_length - FRAME) for index in indices]
        found = [self._split.document_of(start, start + 1) for start in starts]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])


class Padded:
    """One document a sample: BOS, its tokens, EOS, then PAD, which is not valid.

    Documents of more than L-2 tokens make several samples. Keeps 16 bytes a document.

    Raises:
        UserError: the sequence length is below 3, or every document is empty.
    """

    def __init__(self, split: Split, sequence_length: int) -> None:
        check_length(sequence_length)
        self.split = split
        self._sequence_length = sequence_length
        self._starts = split.document_starts()
        lengths = np.diff(self._starts) - 1  # without the document's own EOS
        pieces = -(-lengths // (sequence_length - FRAME))
        self._first_sample = np.concatenate([[0], np.cumsum(pieces)])
        if not len(self):
            raise UserError(f"{split.directory}: every document is empty, no sample can be filled")

    def __len__(self) -> int:
        return int(self._first_sample[-1])

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The document of each sample, and whether the sample ends it: int64 [B], bool [B]."""
        documents = np.searchsorted(self._first_sample, indices, side="right") - 1
        return documents, indices + 1 == self._first_sample[documents + 1]

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """See `Packing.document_of`."""
        return self.locate(indices)[0]

    def read(
        self, indices: np.ndarray, positions: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """See `Packing.read`."""
        length, manifest = self._sequence_length, self.split.manifest
        tokens = np.full((len(indices), length), manifest.pad_id, dtype=np.int64)
        valid = np.zeros(tokens.shape, dtype=bool)
        documents, _ = self.locate(indices)
        for row, (index, document) in enumerate(zip(indices, documents, strict=True)):
            piece = int(index - self._first_sample[document])
            start = int(self._starts[document]) + piece * (length - FRAME)
            stop = min(start + length - FRAME, int(self._starts[document + 1]) - 1)
            end = stop - start + FRAME
            tokens[row, :end] = framed(self.split, self.split.tokens(start, stop)[None])[0]
            valid[row, :end] = True
        return {"tokens": tokens, "valid": valid}


def check_length(sequence_length: int) -> None:
    """UserError for a sequence length without room for a token between BOS and EOS."""
    if sequence_length < FRAME + 1:
        raise UserError(
            f"a sequence length of {sequence_length} is too short: BOS and EOS take two "
            f"positions, so it has to be {FRAME + 1} or more"
        )


def _stream_pieces(split: Split, size: int, indices: np.ndarray) -> np.ndarray:
    """Pieces [B] of the stream: int64 [B, size]."""
    starts = [int(index) * size for index in indices]
    pieces = [split.tokens(start, start + size) for start in starts]
    return np.stack(pieces) if pieces else np.empty((0, size), dtype=np.int64)


def framed(split: Split, pieces: np.ndarray) -> np.ndarray:
    """Put BOS before and EOS after each of pieces [B, l]: int64 [B, l + 2]."""
    tokens = np.pad(pieces, ((0, 0), (1, 1)))
    tokens[:, 0], tokens[:, -1] = split.manifest.bos_id, split.manifest.eos_id
    return tokens


def segments_of(split: Split, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """`segment` int64 of framed pieces [B, l]: from 1 on, one more behind each EOS."""
    ends = (tokens == split.manifest.eos_id).astype(np.int64)
    return {"segment": 1 + ends.cumsum(axis=1) - ends}
