"""Continuous paragraph denoise (Lin et al. 2023, GENIE, arXiv:2212.11685, section 3.3).

A span of a paragraph becomes one mask in the source, and the target that the decoder has to
restore. Which span is a function of the sample's position in the training stream: independent of
the parallel layout, and another one in every epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from configs.checks import Checked, at_least
from configs.errors import UserError
from data_pipeline.shards import Split
from data_pipeline.source_target import sample_arrays


class Uniforms(Protocol):
    """Randomness by stream position."""

    def uniform(self, kind: str, position_B: torch.Tensor, num: int) -> torch.Tensor:
        """Uniforms in (0, 1), float64 ``[B, num]``."""


@dataclass(frozen=True, kw_only=True)
class ParagraphConfig(Checked):
    """Continuous paragraph denoise.

    Args:
        ratio: share of a paragraph's tokens that is masked.
        num_spans: number of masked spans, of equal length up to one token; each becomes one mask.
        target: the masked spans, end to end, or the full paragraph.
        min_length: paragraphs of fewer tokens are left out.
    """

    ratio: float = 0.3
    num_spans: int = 1
    target: Literal["span", "full"] = "span"
    min_length: int = 30

    def _check_values(self) -> Iterator[str]:
        yield from at_least(self, 1, "num_spans", "min_length")
        if not 0.0 < self.ratio < 1.0:
            yield f"ratio must lie in (0, 1), not {self.ratio}"

    def _check_spans(self) -> Iterator[str]:
        if int(self.ratio * self.min_length) < self.num_spans:
            yield (
                f"min_length {self.min_length}: {self.ratio:g} of it is less than "
                f"{self.num_spans} tokens for as many spans"
            )

    def masked(self, length: int) -> int:
        """Number of masked tokens in a paragraph of ``length`` tokens."""
        return int(self.ratio * length)

    def span_lengths(self, total: int) -> list[int]:
        """Lengths of the spans that hold ``total`` tokens; the first ones are longer by one."""
        return [
            total // self.num_spans + (i < total % self.num_spans) for i in range(self.num_spans)
        ]


def cut_spans(
    tokens: np.ndarray, uniform: np.ndarray, config: ParagraphConfig, mask: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut spans out: the source, with one mask for each, and the target, the spans end to end.

    Args:
        tokens: int64 [n]. uniform: float64 [num_spans] in (0, 1).
    """
    lengths = config.span_lengths(config.masked(len(tokens)))
    free = len(tokens) - sum(lengths)
    # Sorted numbers of the tokens that stay before each span: every one from 0 to `free`.
    before = np.sort((uniform * (free + 1)).astype(np.int64))
    source, target, start = [], [], 0
    for kept, length in zip(np.diff(before, prepend=0), lengths, strict=True):
        source += [tokens[start : start + kept], np.array([mask])]
        target.append(tokens[start + kept : start + kept + length])
        start += int(kept) + length
    return np.concatenate([*source, tokens[start:]]), np.concatenate(target)


def reinsert(
    source: np.ndarray, target: np.ndarray, config: ParagraphConfig, mask: int
) -> np.ndarray:
    """The inverse of :func:`cut_spans`: put the spans of a target back into its source."""
    pieces = np.split(target, np.cumsum(config.span_lengths(len(target)))[:-1])
    parts, start = [], 0
    for place, piece in zip(np.flatnonzero(source == mask), pieces, strict=True):
        parts += [source[start:place], piece]
        start = int(place) + 1
    return np.concatenate([*parts, source[start:]])


class Paragraphs:
    """Samples of continuous paragraph denoise from the documents of a split.

    A document is cut into paragraphs of at most ``source_length`` tokens, its EOS left out;
    ends of fewer than ``min_length`` are left out too. Of a split of pairs, a source and its
    target are one document, with EOS between them.

    Raises:
        UserError: the target does not fit into ``sequence_length``, or no document is long
            enough.
    """

    def __init__(
        self,
        split: Split,
        config: ParagraphConfig,
        *,
        source_length: int,
        sequence_length: int,
        mask: int,
        uniforms: Uniforms,
    ) -> None:
        self._split, self._config, self._mask, self._uniforms = split, config, mask, uniforms
        self._source_length, self._sequence_length = source_length, sequence_length
        longest = source_length if config.target == "full" else config.masked(source_length)
        if longest > sequence_length:
            raise UserError(
                f"data.sequence_length is {sequence_length}, but paragraphs of data.source_length "
                f"{source_length} have targets of up to {longest}; set it to {longest} or more"
            )
        if source_length < config.min_length:
            raise UserError(
                f"data.source_length {source_length} is below data.paragraphs.min_length "
                f"{config.min_length}"
            )
        starts = split.document_starts()[:: 2 if split.manifest.pairs else 1]
        lengths = np.diff(starts) - 1
        whole, rest = np.divmod(lengths, source_length)
        per_document = whole + (rest >= config.min_length)
        self._first = np.concatenate([[0], np.cumsum(per_document)])
        self._starts, self._lengths = starts, lengths
        if not len(self):
            raise UserError(
                f"{split.directory}: no document has {config.min_length} tokens "
                "(data.paragraphs.min_length)"
            )

    def __len__(self) -> int:
        return int(self._first[-1])

    def document_of(self, indices: np.ndarray) -> np.ndarray:
        """The document that each sample [B] is cut from, int64 [B]."""
        return np.searchsorted(self._first, indices, side="right") - 1

    def paragraph(self, index: int) -> np.ndarray:
        """The tokens of one paragraph, int64 [n]."""
        document = int(self.document_of(np.array(index)))
        begin = (index - int(self._first[document])) * self._source_length
        end = min(begin + self._source_length, int(self._lengths[document]))
        first = int(self._starts[document])
        return self._split.tokens(first + begin, first + end)

    def read(self, indices: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Samples [B]; their stream positions [B] determine the masked spans."""
        uniform = self._uniforms.uniform(
            "span", torch.from_numpy(positions), self._config.num_spans
        ).numpy()
        sources, targets = [], []
        for index, own in zip(indices, uniform, strict=True):
            tokens = self.paragraph(int(index))
            source, target = cut_spans(tokens, own, self._config, self._mask)
            sources.append(source)
            targets.append(tokens if self._config.target == "full" else target)
        pad = self._split.manifest.pad_id
        return sample_arrays(sources, targets, self._source_length, self._sequence_length, pad)
