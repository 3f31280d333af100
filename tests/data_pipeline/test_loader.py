from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.loader import Stream
from data_pipeline.packing import Packing, pack
from data_pipeline.shards import open_split


@pytest.fixture(scope="module")
def packed(corpus: Path) -> Packing:
    return pack(open_split(corpus, "train"), 64, "wrap")


def test_a_batch(packed: Packing) -> None:
    stream = Stream(packed, key=7)
    positions = np.array([5, 0, 10**12])
    batch = stream.batch(positions)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == {
        "tokens": (torch.int64, (3, 64)),
        "valid": (torch.bool, (3, 64)),
        "position": (torch.int64, (3,)),
    }
    assert batch["position"].tolist() == positions.tolist()
    expected = packed.read(stream.sample_indices(positions))["tokens"]
    assert np.array_equal(batch["tokens"].numpy(), expected)


def test_each_epoch_is_every_sample_in_another_order(packed: Packing) -> None:
    size = len(packed)
    indices = Stream(packed, key=7).sample_indices(np.arange(3 * size)).reshape(3, size)
    assert (np.sort(indices, axis=1) == np.arange(size)).all()
    assert len({tuple(epoch) for epoch in indices.tolist()}) == 3
    other = Stream(packed, key=8).sample_indices(np.arange(size))
    assert other.tolist() not in indices.tolist()


def test_a_sample_depends_on_its_position_alone(packed: Packing) -> None:
    positions = np.arange(2 * len(packed))
    whole = Stream(packed, key=7).batch(positions)["tokens"]
    for number, part in enumerate(np.array_split(positions[::-1], 9)):
        tokens = Stream(packed, key=7).batch(part)["tokens"]
        assert torch.equal(tokens, whole[torch.from_numpy(part.copy())]), number
