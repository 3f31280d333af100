"""The training stream: sample k is a pure function of k.

Nothing is stateful, so nothing is saved: a resumed run, with any number of ranks, asks for
the positions that come next. Each pass over the samples is shuffled by its own key.

A **batch** is a dict of tensors, since `data_pipeline` and `model` do not see each other:

    tokens    int64 [B, L]  ids in 0..V-1, framed by BOS and EOS
    valid     bool  [B, L]  False on padding
    position  int64 [B]     k of each sample in the training stream

and, where there is a source, `source` int64 [B, S] and `source_valid` bool [B, S].
"""

from typing import Protocol

import numpy as np
import torch

from data_pipeline.permutation import derive_key, shuffled


class Samples(Protocol):
    """Numbered samples of a split."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Samples [B] as they stand at stream positions [B]: arrays by the keys of a batch."""
        ...


class Stream:
    """The endless stream of the samples of `packed`, shuffled anew in every epoch.

    `key` names the shuffle; the run's seed is a good one.
    """

    def __init__(self, packed: Samples, key: int) -> None:
        self._packed = packed
        self._key = key

    def __len__(self) -> int:
        """Samples of one pass."""
        return len(self._packed)

    def sample_indices(self, positions: np.ndarray) -> np.ndarray:
        """Which samples [B] of the packing stand at stream positions [B], int64."""
        positions = np.asarray(positions, dtype=np.int64)
        assert positions.ndim == 1, positions.shape
        size = len(self._packed)
        epochs, places = np.divmod(positions, size)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = shuffled(places[here], size, derive_key(self._key, int(epoch)))
        return indices

    def batch(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        """The batch at stream positions [B], any integers from 0 on, in the order given."""
        positions = np.array(positions, dtype=np.int64)
        arrays = self._packed.read(self.sample_indices(positions), positions)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return batch | {"position": torch.from_numpy(positions)}
