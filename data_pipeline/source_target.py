"""Arrays of samples that have a source and a target.

Target positions after the text are PAD and *valid*: padding is generated too, and marks where a
generated text ends.
"""

from collections.abc import Sequence

import numpy as np


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
    """Pad texts on the right: ids int64 [B, length], and bool [B, length], False on padding."""
    ids = np.full((len(texts), length), pad, dtype=np.int64)
    valid = np.zeros(ids.shape, dtype=bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        valid[row, : len(text)] = True
    return ids, valid
