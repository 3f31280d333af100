"""Write a split: tokenize documents, append EOS to each, and store them in shards.

EOS is in the stream, so that the `.bin` files end to end are what is packed (`packing.py`).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Never

import numpy as np
from tqdm import tqdm

from configs.errors import UserError
from data_pipeline.atomic_directory import atomic_directory
from data_pipeline.indexed import indexed_dataset, token_dtype
from data_pipeline.lengths import LENGTHS
from data_pipeline.manifest import (
    COUNTS,
    Manifest,
    Shard,
    file_sha256,
    miscounted,
    read_manifest,
    write_manifest,
)
from data_pipeline.round_trips import RoundTrips
from data_pipeline.special_tokens import SIDECAR
from data_pipeline.tokenizer import Tokenizer

_BATCH_CHARACTERS = 2**20  # tokenized at once; bounds the memory, not the documents


def write_split(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    directory: Path,
    *,
    shard_tokens: int = 2**28,
    overwrite: bool = False,
    skipped: Mapping[str, int] | None = None,
    progress: bool = True,
    pairs: bool = False,
) -> Manifest:
    """Tokenize documents into `directory`, which appears when everything is written.

    Args:
        documents: texts; read once, in order.
        tokenizer: its file has to lie in the parent directory when the split is opened.
        directory: CORPUS/SPLIT.
        shard_tokens: a shard is closed by the document that reaches this many tokens.
        overwrite: whether an existing split of ours may be replaced; nothing else ever is.
        skipped: counts "empty" and "bad", read after the last document (`Documents.skipped`).
        pairs: whether documents come in twos, a source and its target.
        progress: whether to show a progress bar on standard error.

    Raises:
        UserError: the split exists, or what is there is no split of ours; there is no document;
            special tokens came out of the text; or whatever `documents` raises.
    """
    sidecar = directory.with_name(SIDECAR)
    with atomic_directory(directory, own_files=_own_files if overwrite else None) as staging:
        batches = _batches(documents)
        if (first := next(batches, None)) is None:
            raise UserError(f"{directory}: there is no document to write")
        writer = _ShardWriter(staging, tokenizer, shard_tokens)
        with _progress_bar(progress) as bar:
            for texts in chain([first], batches):
                bar.update(writer.add(texts))
        shards = writer.close()
        np.save(staging / COUNTS, writer.counts)
        left_out = Counter(skipped)  # zero where a key is missing
        manifest = Manifest(
            tokenizer_sha256=tokenizer.sha256,
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            mask_id=tokenizer.mask_id,
            lossless=writer.round_trips.first_loss is None,
            documents=sum(shard.documents for shard in shards),
            tokens=sum(shard.tokens for shard in shards),
            bytes=writer.num_bytes,
            skipped_empty=left_out["empty"],
            skipped_bad=left_out["bad"],
            shards=tuple(shards),
            counts_sha256=file_sha256(staging / COUNTS),
            pairs=pairs,
            round_trips=writer.round_trips.tried,
            first_loss=writer.round_trips.first_loss,
            sidecar_sha256=file_sha256(sidecar) if sidecar.is_file() else None,
            characters=writer.num_characters,
        )
        if wrong := miscounted(manifest, writer.counts):
            raise UserError(f"{directory}: {wrong}")
        write_manifest(manifest, staging)
    return manifest


def _own_files(directory: Path) -> set[str]:
    """Names of a split's files; UserError if the directory is no split or holds other files."""
    advice = "only a split that `tokenize` made is replaced; choose another --split name"
    if not directory.is_dir():
        raise UserError(f"{directory}: is not a directory; {advice}")
    try:
        files = read_manifest(directory).files | {LENGTHS}
    except UserError as error:
        raise UserError(f"{directory}: is not recognised as a split ({error}); {advice}") from error
    foreign = sorted(path.name for path in directory.iterdir() if path.name not in files)
    foreign += sorted(name for name in files if (directory / name).is_dir())
    if foreign:
        named = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise UserError(
            f"{directory}: holds {named} beside the files of the split; move them elsewhere, or "
            "choose another --split name"
        )
    return files


class _ShardWriter:
    """Appends documents to the open shard and opens the next when it is full."""

    def __init__(self, directory: Path, tokenizer: Tokenizer, shard_tokens: int) -> None:
        assert shard_tokens > 0, shard_tokens
        self._megatron = indexed_dataset()
        self._directory = directory
        self._tokenizer = tokenizer
        self._shard_tokens = shard_tokens
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._shards: list[Shard] = []
        self._open()
        self.counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self.num_bytes = self.num_characters = 0
        self.round_trips = RoundTrips(tokenizer)

    def add(self, texts: list[str]) -> int:
        """Append documents; returns their number of tokens."""
        eos = [self._tokenizer.eos_id]
        encoded = self._tokenizer.encode(texts)
        self.round_trips.add(texts, encoded)
        documents = [np.array(ids + eos, np.int64) for ids in encoded]
        for tokens in documents:
            if self._tokens >= self._shard_tokens:
                self._finish()
                self._open()
            self._builder.add_document(tokens, [len(tokens)])
            self._documents += 1
            self._tokens += len(tokens)
        stream = np.concatenate(documents)
        self.counts += np.bincount(stream, minlength=len(self.counts))
        self.num_bytes += sum(len(text.encode("utf-8")) for text in texts)
        self.num_characters += sum(map(len, texts))
        return len(stream)

    def close(self) -> list[Shard]:
        """Finish the last shard; returns all of them."""
        self._finish()
        return self._shards

    def _open(self) -> None:
        self._name = f"{len(self._shards):05d}"
        self._bin = self._directory / f"{self._name}.bin"
        self._builder = self._megatron.IndexedDatasetBuilder(str(self._bin), dtype=self._dtype)
        self._documents = self._tokens = 0

    def _finish(self) -> None:
        idx = self._bin.with_suffix(".idx")
        self._builder.finalize(str(idx))
        self._shards.append(
            Shard(
                name=self._name,
                documents=self._documents,
                tokens=self._tokens,
                bin_bytes=self._bin.stat().st_size,
                idx_bytes=idx.stat().st_size,
                sha256_bin=file_sha256(self._bin),
                sha256_idx=file_sha256(idx),
            )
        )


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _progress_bar(shown: bool) -> "tqdm[Never]":
    """A progress bar in a terminal; in a log file a line every half minute."""
    terminal = sys.stderr.isatty()
    return tqdm(
        desc="tokenizing",
        unit="tok",
        unit_scale=True,
        disable=not shown,
        ascii=not terminal,
        delay=0 if terminal else 30,
        mininterval=0.1 if terminal else 30,
    )
