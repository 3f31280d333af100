"""Histogram of document lengths of a split, counted once and cached beside its shards.

The file follows from the shards, so the manifest does not list it: where it is missing or
contradicts the manifest it is made anew, and where nothing can be written the lengths are
counted each time.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from configs.errors import UserError

LENGTHS = "lengths.npy"


class Split(Protocol):
    """What is needed of a :class:`data_pipeline.shards.Split`."""

    @property
    def directory(self) -> Path:
        """Where its shards lie."""
        ...

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        ...

    @property
    def num_tokens(self) -> int:
        """Number of tokens, one EOS a document included."""
        ...

    def document_starts(self) -> np.ndarray:
        """Where documents begin in the stream, and its end: int64 [documents + 1]."""
        ...


def document_lengths(split: Split) -> np.ndarray:
    """Number of documents of each length in tokens, from 0 on, EOS included: int64."""
    kept = _kept(split)
    if kept is not None:
        return kept
    counted = _counted(split)
    with contextlib.suppress(OSError):
        _write(split.directory / LENGTHS, counted)
    return counted


def verify_lengths(split: Split) -> None:
    """UserError where the cached file is there and contradicts the shards."""
    path = split.directory / LENGTHS
    if path.exists():
        kept = _kept(split)
        if kept is None or not np.array_equal(kept, _counted(split)):
            raise UserError(f"{path}: damaged; remove it, it is made anew when it is needed")


def _counted(split: Split) -> np.ndarray:
    return np.bincount(np.diff(split.document_starts())).astype(np.int64, copy=False)


def _kept(split: Split) -> np.ndarray | None:
    """What the file holds, if that can be true of the split."""
    try:
        found = np.load(split.directory / LENGTHS, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.int64 or found.ndim != 1:
        return None
    tokens = int((np.arange(len(found)) * found).sum())
    is_sound = (int(found.sum()), tokens) == (split.num_documents, split.num_tokens)
    return found if is_sound and found.min(initial=0) >= 0 else None


def _write(path: Path, lengths: np.ndarray) -> None:
    """Write the file atomically, whatever other processes write it now."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.save(file, lengths)
        aside.chmod(0o644)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
