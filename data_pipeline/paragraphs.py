"""Samples with a source and a target: masked paragraphs, and pairs of texts.

Continuous paragraph denoise (Lin et al. 2023, GENIE, section 3.3): a span of a paragraph
becomes one mask in the source, and is what the decoder has to give back. Which span is a
function of the sample's position in the training stream, so that no layout can change it,
and another one in every epoch.

Target positions after the text are PAD and *valid*: padding is generated too, and that is
how a model says where its text ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from configs.checks import Checked, at_least
from configs.errors import UserError
from data_pipeline.shards import Split


class Uniforms(Protocol):
    """Randomness by stream position."""

    def uniform(self, kind: str, position_B: torch.Tensor, num: int) -> torch.Tensor:
        """Uniforms in (0, 1), float64 ``[B, num]``."""


@dataclass(frozen=True, kw_only=True)
class ParagraphConfig(Checked):
    """Continuous paragraph denoise.

    Args:
        ratio: share of a paragraph's tokens that is masked.
        num_spans: in so many spans of (almost) equal length; each becomes one mask.
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
        """Tokens that are masked in a paragraph of so many."""
        return int(self.ratio * length)

    def span_lengths(self, total: int) -> list[int]:
        """Lengths of the spans that hold ``total`` tokens; the first ones are longer by one."""
        return [
            total // self.num_spans + (i < total % self.num_spans) for i in range(self.num_spans)
        ]


def cut_spans(
    tokens: np.ndarray, uniform: np.ndarray, config: ParagraphConfig, mask: int
) -> tuple[np.ndarray, np.ndarray]:
    """The paragraph with each span as one mask, and the spans end to end.

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
    """The paragraph that :func:`cut_spans` cut: the inverse of it, for targets of spans."""
    pieces = np.split(target, np.cumsum(config.span_lengths(len(target)))[:-1])
    parts, start = [], 0
    for place, piece in zip(np.flatnonzero(source == mask), pieces, strict=True):
        parts += [source[start:place], piece]
        start = int(place) + 1
    return np.concatenate([*parts, source[start:]])


class Paragraphs:
    """Continuous paragraph denoise on the documents of a split.

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
        """Samples [B], masked as their stream positions [B] say."""
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


class Pairs:
    """Sources and their targets, from a split that was written with ``--pairs``.

    What is longer than its side allows is cut there.

    Attributes:
        notes: how many are cut, a sentence for each side.

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
        """See :meth:`Paragraphs.document_of`: a pair is one document."""
        return indices

    def texts(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of one source and its target."""
        bounds = [int(start) for start in self._starts[2 * index : 2 * index + 3]]
        source = self._split.tokens(bounds[0], bounds[1] - 1)
        target = self._split.tokens(bounds[1], bounds[2] - 1)
        return source[: self._source_length], target[: self._sequence_length]

    def read(self, indices: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Samples [B]; nothing of them is drawn."""
        sources, targets = zip(*(self.texts(int(index)) for index in indices), strict=True)
        pad = self._split.manifest.pad_id
        return sample_arrays(sources, targets, self._source_length, self._sequence_length, pad)


def sample_arrays(
    sources: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    source_length: int,
    target_length: int,
    pad: int,
) -> dict[str, np.ndarray]:
    """`source` [B, S] and `source_valid`, `tokens` [B, L] and `valid` (true: PAD is a target)."""
    source, source_valid = padded(sources, source_length, pad)
    tokens, _ = padded(targets, target_length, pad)
    valid = np.ones(tokens.shape, dtype=bool)
    return {"tokens": tokens, "valid": valid, "source": source, "source_valid": source_valid}


def padded(
    texts: Sequence[Sequence[int] | np.ndarray], length: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """Texts [B, length] int64, and where they are not padding."""
    ids = np.full((len(texts), length), pad, dtype=np.int64)
    valid = np.zeros(ids.shape, dtype=bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        valid[row, : len(text)] = True
    return ids, valid
