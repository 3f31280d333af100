"""Pairs of a source and a target text, as samples for sequence to sequence."""

import numpy as np

from configs.errors import UserError
from data_pipeline.shards import Split
from data_pipeline.source_target import sample_arrays


class Pairs:
    """Sources and their targets, from a split that was written with ``--pairs``.

    Sources and targets that are too long are cut at the end.

    Attributes:
        notes: for each side, a sentence with the number of texts that are cut.

    Raises:
        UserError: the split does not hold pairs.
    """

    def __init__(self, split: Split, *, source_length: int, sequence_length: int) -> None:
        if not split.manifest.pairs:
            raise UserError(
                f"{split.directory}: does not hold pairs; make it with `python -m data_pipeline "
                "tokenize FILES --pairs source target`"
            )
        self._split = split
        self._source_length, self._sequence_length = source_length, sequence_length
        self._starts = split.document_starts()
        lengths = np.diff(self._starts) - 1
        self.notes: list[str] = []
        for side, found, allowed in (
            ("source", lengths[0::2], source_length),
            ("target", lengths[1::2], sequence_length),
        ):
            if cut := int((found > allowed).sum()):
                self.notes.append(
                    f"{split.directory}: {cut} of {len(found)} {side}s are longer than {allowed} "
                    "tokens and are cut"
                )

    def __len__(self) -> int:
        return self._split.num_documents // 2

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """The pair that each sample [B] is, int64 [B]: a pair counts as one document."""
        return indices

    def texts(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of one source and its target."""
        bounds = [int(start) for start in self._starts[2 * index : 2 * index + 3]]
        source = self._split.tokens(bounds[0], bounds[1] - 1)
        target = self._split.tokens(bounds[1], bounds[2] - 1)
        return source[: self._source_length], target[: self._sequence_length]

    def read(self, indices: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Samples [B]; stream positions [B] change nothing."""
        sources, targets = zip(*(self.texts(int(index)) for index in indices), strict=True)
        pad = self._split.manifest.pad_id
        return sample_arrays(sources, targets, self._source_length, self._sequence_length, pad)
