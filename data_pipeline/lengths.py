"""How many documents of a split have each length: counted once, and kept beside its shards.

The file follows from the shards, so it is no part of the manifest: where it is missing, or
does not add up to what the manifest says, it is made anew; where nothing can be written, the
lengths are counted each time.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.errors import UserError

if TYPE_CHECKING:
    from data_pipeline.shards import Split

LENGTHS = "lengths.npy"


def document_lengths(split: "Split") -> np.ndarray:
    """By length in tokens, from 0 on, the documents of that length, EOS included: int64."""
    kept = _kept(split)
    if kept is not None:
        return kept
    counted = _counted(split)
    with contextlib.suppress(OSError):
        _write(split.directory / LENGTHS, counted)
    return counted


def verify_lengths(split: "Split") -> None:
    """UserError where the file is there and is not what the shards hold."""
    path = split.directory / LENGTHS
    if path.exists():
        kept = _kept(split)
        if kept is None or not np.array_equal(kept, _counted(split)):
            raise UserError(f"{path}: damaged; remove it, it is made anew when it is needed")


def _counted(split: "Split") -> np.ndarray:
    return np.bincount(np.diff(split.document_starts())).astype(np.int64, copy=False)


def _kept(split: "Split") -> np.ndarray | None:
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
    """Whole or not at all, whoever else writes it now."""
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
