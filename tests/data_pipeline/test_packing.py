from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from configs.errors import UserError
from data_pipeline.packing import pack
from data_pipeline.shards import Split, open_split
from data_pipeline.windows import held_out

BOS, EOS, PAD = 1, 2, 3


@pytest.fixture(scope="module")
def split(corpus: Path) -> Split:
    return open_split(corpus, "train")


@pytest.mark.parametrize("length", [3, 10, 64, 1000])
def test_wrapped_is_the_framed_stream_without_its_remainder(split: Split, length: int) -> None:
    packed = pack(split, length, "wrap")
    batch = packed.read(np.arange(len(packed)))
    tokens, valid = batch["tokens"], batch["valid"]
    assert tokens.shape == valid.shape == (split.num_tokens // (length - 2), length)
    assert tokens.dtype == np.int64
    assert valid.dtype == bool
    assert valid.all()
    assert (tokens[:, 0] == BOS).all()
    assert (tokens[:, -1] == EOS).all()
    inside = tokens[:, 1:-1].ravel()
    assert np.array_equal(inside, split.tokens(0, inside.size))
    assert split.num_tokens - inside.size < length - 2


@pytest.mark.parametrize("how", ["wrap", "pad"])
def test_samples_come_in_the_order_asked_for(split: Split, how: Literal["wrap", "pad"]) -> None:
    packed = pack(split, 32, how)
    every = packed.read(np.arange(len(packed)))
    chosen = np.array([len(packed) - 1, 0, 5, 5])
    some = packed.read(chosen)
    for name in ("tokens", "valid"):
        assert np.array_equal(some[name], every[name][chosen])
        assert packed.read(chosen[:0])[name].shape == (0, 32)


@pytest.mark.parametrize("length", [3, 17, 100, 5000])
def test_padded_holds_each_document_once(split: Split, length: int) -> None:
    packed = pack(split, length, "pad")
    batch = packed.read(np.arange(len(packed)))
    starts = split.document_starts()
    rows = iter(zip(batch["tokens"], batch["valid"], strict=True))
    for start, stop in zip(starts[:-1], starts[1:] - 1, strict=True):  # without the EOS
        for piece in range(int(start), int(stop), length - 2):
            inside = split.tokens(piece, min(piece + length - 2, int(stop))).tolist()
            padding = length - 2 - len(inside)
            tokens, valid = next(rows)
            assert tokens.tolist() == [BOS, *inside, EOS] + [PAD] * padding
            assert valid.tolist() == [True] * (len(inside) + 2) + [False] * padding
    assert next(rows, None) is None


def test_lengths_that_cannot_be(split: Split) -> None:
    for make in (lambda n: pack(split, n, "wrap"), lambda n: pack(split, n, "pad")):
        with pytest.raises(UserError, match="sequence length of 2 is too short"):
            make(2)
    with pytest.raises(UserError, match="sequence length of 2 is too short"):
        held_out(split, 2, "wrap")
    longest = split.num_tokens + 2
    assert len(pack(split, longest, "wrap")) == 1
    with pytest.raises(UserError, match=rf"no sample can fill: .* longest possible is {longest}$"):
        pack(split, longest + 1, "wrap")
    with pytest.raises(UserError, match="choose wrap or pad"):
        pack(split, 8, "fold")  # type: ignore[arg-type]


def test_segments_are_the_documents_of_a_window(split: Split) -> None:
    packed = pack(split, 64, "wrap", segments=True)
    first_end = int(split.document_starts()[1]) // 62
    indices = np.array([0, first_end, len(packed) - 1])
    read = packed.read(indices)
    for index, tokens, segment in zip(indices, read["tokens"], read["segment"], strict=True):
        document = split.document_of(int(index) * 62, int(index) * 62 + 62)
        assert (segment[1:-1] == 1 + document - document[0]).all()
        assert segment[0] == 1
        ended = tokens[-2] == EOS
        assert segment[-1] == segment[-2] + ended
    assert (read["segment"] > 1).any()
    windows = held_out(split, 64, "wrap", segments=True)
    (first, last) = windows.read(0, len(windows))
    assert np.array_equal(first["segment"][indices[:2]], read["segment"][:2])
    assert last["segment"].shape == last["tokens"].shape
    assert "segment" not in pack(split, 64, "wrap").read(indices)


@pytest.mark.parametrize("how", ["wrap", "pad"])
def test_a_sample_is_of_the_document_that_it_begins_in(
    split: Split, how: Literal["wrap", "pad"]
) -> None:
    packed = pack(split, 64, how)
    indices = np.arange(len(packed))
    tokens = packed.read(indices)["tokens"]
    starts = split.document_starts()
    for index, document in zip(indices, packed.document_of(indices), strict=True):
        text = split.tokens(int(starts[document]), int(starts[document + 1]))
        assert tokens[index, 1] in text
    assert (np.diff(packed.document_of(indices)) >= 0).all()
