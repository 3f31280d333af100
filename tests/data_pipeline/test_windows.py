"""Evaluation windows: every token of a split is scored exactly once."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.packing import pack
from data_pipeline.shards import Split, open_split
from data_pipeline.windows import WrappedWindows, held_out

BOS, EOS, PAD = 1, 2, 3


@pytest.fixture(scope="module")
def split(corpus: Path) -> Split:
    return open_split(corpus, "train")


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
