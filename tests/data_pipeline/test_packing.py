from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from configs.errors import UserError
from data_pipeline.packing import WrappedWindows, held_out, pack
from data_pipeline.shards import Split, open_split

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


@pytest.mark.parametrize("length", [3, 50, 777, 10**6])
def test_windows_score_every_token_once(split: Split, length: int) -> None:
    windows = held_out(split, length, "wrap")
    seen, documents, count = [], [], 0
    for start in range(0, len(windows), 7):
        for batch in windows.read(start, min(start + 7, len(windows))):
            tokens, scored, document = batch["tokens"], batch["scored"], batch["document"]
            assert tokens.shape == scored.shape == document.shape
            assert tokens.shape[1] == length or tokens.shape[0] == 1
            assert (tokens[:, 0] == BOS).all()
            assert (tokens[:, -1] == EOS).all()
            assert not scored[:, [0, -1]].any()
            assert scored[:, 1:-1].all()
            assert np.array_equal(document >= 0, scored)
            seen.append(tokens[scored])
            documents.append(document[scored])
            count += len(tokens)
    assert count == len(windows)
    assert np.array_equal(np.concatenate(seen), split.tokens(0, split.num_tokens))
    numbers = np.concatenate(documents)
    assert np.array_equal(np.bincount(numbers), np.diff(split.document_starts()))
    assert (np.diff(numbers) >= 0).all()


@pytest.mark.parametrize("length", [3, 5, 50, 777])
def test_padded_windows_score_every_token_once(split: Split, length: int) -> None:
    windows = held_out(split, length, "pad")
    packed = pack(split, length, "pad")
    seen, documents = [], []
    for start in range(0, len(windows), 7):
        indices = np.arange(start, min(start + 7, len(windows)))
        [batch] = windows.read(indices[0], indices[-1] + 1)
        assert np.array_equal(batch["tokens"], packed.read(indices)["tokens"])
        assert np.array_equal(batch["valid"], packed.read(indices)["valid"])
        assert not (batch["scored"] & ~batch["valid"]).any()
        assert np.array_equal(batch["document"] >= 0, batch["scored"])
        after = np.pad(batch["valid"], ((0, 0), (0, 1)))[:, 1:]
        last = batch["valid"] & ~after
        assert np.array_equal(batch["ending"], ~batch["valid"] | last)
        assert (batch["tokens"][last] == EOS).all()
        seen.append(batch["tokens"][batch["scored"]])
        documents.append(batch["document"][batch["scored"]])
    assert np.array_equal(np.concatenate(seen), split.tokens(0, split.num_tokens))
    counted = np.bincount(np.concatenate(documents))
    assert np.array_equal(counted, np.diff(split.document_starts()))


def test_no_short_window_where_the_stream_divides(split: Split) -> None:
    windows = held_out(split, split.num_tokens + 2, "wrap")
    assert isinstance(windows, WrappedWindows)
    assert len(windows) == windows.num_full == 1
    [only] = windows.read(0, 1)
    assert only["tokens"].shape == (1, split.num_tokens + 2)
    assert list(windows.read(1, 1)) == []


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
