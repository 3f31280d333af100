"""A split on disk, read as one flat stream of tokens.

    CORPUS/tokenizer.model or tokenizer.json
    CORPUS/SPLIT/manifest.json  counts.npy  00000.bin 00000.idx  00001.bin ... [lengths.npy]

Everything is memory-mapped through megatron-core's `IndexedDataset`: opening reads a few
pages, whatever the corpus weighs. What is cheap to check is checked at every opening and
reading, and every byte by `verify_split`.
"""

from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import UserError
from data_pipeline.atomic_directory import leftovers
from data_pipeline.indexed import indexed_dataset, is_expected_index
from data_pipeline.lengths import document_lengths, verify_lengths
from data_pipeline.manifest import (
    COUNTS,
    FILE_NAME,
    Manifest,
    Shard,
    file_sha256,
    miscounted,
    read_manifest,
    verify_manifest,
)
from data_pipeline.special_tokens import SIDECAR
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from data_pipeline.writer import write_split

__all__ = ["Manifest", "Shard", "Split", "open_split", "verify_split", "write_split"]

_REMEDY = "restore the file, or make the split again with `tokenize --overwrite`"
_VERIFIED_AT_ONCE = 2**22  # tokens


class Split:
    """The tokens of a split, EOS after each document, numbered from 0 through all shards."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        # The datasets own the maps their index arrays view: no view may leave this object.
        self._shards = [
            _open_shard(directory, shard, manifest.vocab_size) for shard in manifest.shards
        ]
        self._first_token = _offsets([shard.tokens for shard in manifest.shards])
        self._first_document = _offsets([shard.documents for shard in manifest.shards])

    @property
    def num_tokens(self) -> int:
        """Length of the stream, one EOS a document included."""
        return self.manifest.tokens

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return self.manifest.documents

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the stream: int64 [stop - start].

        Raises:
            UserError: one of them is no id of the vocabulary.
        """
        parts = [
            self._shards[number].bin_reader.read(
                dtype=self._shards[number].index.dtype,
                count=last - first,
                offset=first * self._itemsize(number),
            )
            for number, first, last in self._shard_ranges(start, stop)
        ]
        tokens = np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64, copy=False)
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.manifest.vocab_size:
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise UserError(
                f"{self.directory}: holds id {wrong}, but the vocabulary ends at "
                f"{self.manifest.vocab_size - 1}; make the split again with `tokenize --overwrite`"
            )
        return tokens

    def document_of(self, start: int, stop: int) -> np.ndarray:
        """The number of the document that each token of [start, stop) is in: int64."""
        parts = []
        for number, first, last in self._shard_ranges(start, stop):
            # The index's own byte offsets, mapped: a search touches a few of its pages.
            offsets = self._shards[number].index.sequence_pointers
            size = self._itemsize(number)
            low = int(np.searchsorted(offsets, first * size, side="right")) - 1
            high = int(np.searchsorted(offsets, (last - 1) * size, side="right"))
            begins = offsets[low:high] // size
            inside = np.searchsorted(begins, np.arange(first, last), side="right") - 1
            parts.append(inside + low + self._first_document[number])
        return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64, copy=False)

    def document_starts(self) -> np.ndarray:
        """Where each document begins, and the end of the last: int64 [documents + 1].

        Eight bytes a document, in memory.

        Raises:
            UserError: an `.idx` file is damaged: the documents do not follow each other.
        """
        parts = [
            shard.index.sequence_pointers // self._itemsize(number) + self._first_token[number]
            for number, shard in enumerate(self._shards)
        ]
        starts = np.concatenate([*parts, [self.num_tokens]]).astype(np.int64, copy=False)
        if starts[0] != 0 or (np.diff(starts) <= 0).any():
            raise UserError(
                f"{self.directory}: an .idx file is damaged, its documents do not follow each "
                f"other; {_REMEDY}"
            )
        return starts

    def counts(self) -> np.ndarray:
        """How often each id occurs in the split: int64 [V].

        Raises:
            UserError: `counts.npy` is not the one that the manifest describes.
        """
        path = self.directory / COUNTS
        if not path.is_file() or file_sha256(path) != self.manifest.counts_sha256:
            raise UserError(f"{path}: missing or damaged; {_REMEDY}")
        try:
            counts = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UserError(f"{path}: not an array of numpy ({error}); {_REMEDY}") from error
        if counts.dtype != np.int64 or counts.shape != (self.manifest.vocab_size,):
            raise UserError(
                f"{path}: {counts.dtype} {counts.shape}, where int64 "
                f"({self.manifest.vocab_size},) is expected; {_REMEDY}"
            )
        return counts

    def lengths(self) -> np.ndarray:
        """See :func:`data_pipeline.lengths.document_lengths`."""
        return document_lengths(self)

    def _itemsize(self, number: int) -> int:
        return int(np.dtype(self._shards[number].index.dtype).itemsize)

    def _shard_ranges(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """The shards that [start, stop) crosses: (shard, first, last), counted within it."""
        assert 0 <= start <= stop <= self.num_tokens, (start, stop, self.num_tokens)
        number = int(np.searchsorted(self._first_token, start, side="right")) - 1
        ranges = []
        while start < stop:
            begin, end = int(self._first_token[number]), int(self._first_token[number + 1])
            ranges.append((number, start - begin, min(stop, end) - begin))
            start, number = end, number + 1
        return ranges


def open_split(corpus: Path, split: str, *, tokenizer: Tokenizer | None = None) -> Split:
    """Open CORPUS/SPLIT, after the checks that take no time.

    Args:
        corpus: the corpus directory.
        split: the split's name, e.g. "train".
        tokenizer: the corpus's tokenizer, if it is loaded already.

    Raises:
        UserError: no such split; a manifest that cannot be read; a file that is missing or of
            another size or contents than the manifest says; shards made by another tokenizer.
    """
    directory = corpus / split
    if not directory.is_dir():
        there = sorted(path.parent.name for path in corpus.glob(f"*/{FILE_NAME}"))
        killed = "".join(
            f"; a killed run left {path}"
            + (f", a whole split: rename it to {split} to have it back" if _is_whole(path) else "")
            for path in leftovers(directory)
        )
        raise UserError(
            f"{corpus}: has no split '{split}' (there: {', '.join(there) or 'none'}); make it with "
            f"`python -m data_pipeline tokenize FILES --corpus {corpus} --split {split}`{killed}"
        )
    manifest = read_manifest(directory)
    _check_tokenizer(directory, manifest, tokenizer or load_tokenizer(corpus))
    return Split(directory, manifest)


def _is_whole(directory: Path) -> bool:
    """Whether all files of a split exist."""
    try:
        return all((directory / name).is_file() for name in read_manifest(directory).files)
    except UserError:
        return False


def verify_split(corpus: Path, split: str) -> Manifest:
    """Open a split and check every byte of it: hashes, ids below V, counts, document ends.

    Raises:
        UserError: at the first thing that is wrong, naming the file.
    """
    if (corpus / split / FILE_NAME).is_file():
        verify_manifest(corpus / split)
        _verify_files(corpus, corpus / split)
    opened = open_split(corpus, split)
    _verify_tokens(opened)
    verify_lengths(opened)
    return opened.manifest


def _verify_files(corpus: Path, directory: Path) -> None:
    """Whether every file is the one that the manifest describes."""
    manifest = read_manifest(directory)
    expected = {directory / COUNTS: manifest.counts_sha256}
    for shard in manifest.shards:
        expected[directory / f"{shard.name}.bin"] = shard.sha256_bin
        expected[directory / f"{shard.name}.idx"] = shard.sha256_idx
    if manifest.sidecar_sha256 is not None:
        expected[corpus / SIDECAR] = manifest.sidecar_sha256
    for path, sha256 in expected.items():
        if not path.is_file():
            raise UserError(f"{path}: missing; {_REMEDY}")
        if file_sha256(path) != sha256:
            raise UserError(f"{path}: damaged, its SHA-256 is not the manifest's; {_REMEDY}")


def _verify_tokens(opened: Split) -> None:
    """Whether the ids are below V, counted right, and EOS at the end of each document only."""
    manifest, directory = opened.manifest, opened.directory
    counts = np.zeros(manifest.vocab_size, dtype=np.int64)
    ends = opened.document_starts()[1:] - 1
    for start in range(0, opened.num_tokens, _VERIFIED_AT_ONCE):
        stop = min(start + _VERIFIED_AT_ONCE, opened.num_tokens)
        tokens = opened.tokens(start, stop)
        counts += np.bincount(tokens, minlength=manifest.vocab_size)
        ends_here = ends[(start <= ends) & (ends < stop)]
        if (tokens[ends_here - start] != manifest.eos_id).any():
            raise UserError(
                f"{directory}: a document does not end with EOS; make the split again "
                "with `tokenize --overwrite`"
            )
    if not np.array_equal(counts, opened.counts()):
        raise UserError(f"{directory / COUNTS}: does not count the tokens of the shards; {_REMEDY}")
    if wrong := miscounted(manifest, counts):
        raise UserError(f"{directory}: {wrong}; make the split again with `tokenize --overwrite`")


def _check_tokenizer(directory: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
    made_by = (
        manifest.tokenizer_sha256,
        manifest.vocab_size,
        manifest.bos_id,
        manifest.eos_id,
        manifest.pad_id,
        manifest.mask_id,
    )
    here = (
        tokenizer.sha256,
        tokenizer.vocab_size,
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
        tokenizer.mask_id,
    )
    if made_by != here:
        raise UserError(
            f"{directory}: shards made by another tokenizer (SHA-256 {made_by[0][:12]}, ids "
            f"{made_by[1:]}) than {directory.parent} holds ({here[0][:12]}, {here[1:]}); put the "
            "right tokenizer there, or make the split again with `tokenize --overwrite`"
        )


def _open_shard(directory: Path, shard: Shard, vocab_size: int) -> Any:
    prefix = directory / shard.name
    for suffix, expected in ((".bin", shard.bin_bytes), (".idx", shard.idx_bytes)):
        path = prefix.with_suffix(suffix)
        if not path.is_file():
            raise UserError(f"{path}: missing; {_REMEDY}")
        if (size := path.stat().st_size) != expected:
            raise UserError(f"{path}: {size} bytes, the manifest says {expected}; {_REMEDY}")
    idx = prefix.with_suffix(".idx")
    damaged = UserError(
        f"{idx}: does not index the {shard.documents} documents and {shard.tokens} tokens that "
        f"the manifest says; {_REMEDY}"
    )
    if not is_expected_index(idx, vocab_size=vocab_size, documents=shard.documents):
        raise damaged
    try:
        dataset = indexed_dataset().IndexedDataset(str(prefix))
    except (AssertionError, ValueError, OSError) as error:  # megatron-core's ways to complain
        raise damaged from error
    offsets, lengths = dataset.index.sequence_pointers, dataset.index.sequence_lengths
    itemsize = np.dtype(dataset.index.dtype).itemsize
    last_byte = int(offsets[-1]) + int(lengths[-1]) * itemsize
    if int(offsets[0]) != 0 or not last_byte == shard.tokens * itemsize == shard.bin_bytes:
        raise damaged
    return dataset


def _offsets(sizes: list[int]) -> np.ndarray:
    offsets = np.array([0, *accumulate(sizes)], dtype=np.int64)
    assert all(low < high for low, high in pairwise(offsets)), sizes
    return offsets
