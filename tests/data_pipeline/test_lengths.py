"""The histogram of document lengths: counted once, kept beside the shards, never just trusted."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data_pipeline.lengths import LENGTHS
from data_pipeline.shards import Split, open_split, verify_split, write_split
from data_pipeline.tokenizer import load_tokenizer


@pytest.fixture
def expected(corpus: Path, documents: list[str]) -> dict[int, int]:
    tokenizer = load_tokenizer(corpus)
    return dict(Counter(len(ids) + 1 for ids in tokenizer.encode(documents)))


def lengths(corpus: Path) -> dict[int, int]:
    found = open_split(corpus, "train").lengths()
    assert found.dtype == np.int64
    return {length: int(number) for length, number in enumerate(found) if number}


def test_lengths_are_counted_once(own_corpus: Path, expected: dict[int, int], monkeypatch) -> None:
    assert lengths(own_corpus) == expected
    monkeypatch.setattr(Split, "document_starts", lambda split: 1 / 0)
    assert lengths(own_corpus) == expected
    assert not list((own_corpus / "train").glob(".*"))
    monkeypatch.undo()
    verify_split(own_corpus, "train")


def test_where_nothing_can_be_written_they_are_counted_anew(
    own_corpus: Path, expected: dict[int, int], monkeypatch
) -> None:
    def read_only(**where: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", read_only)
    assert lengths(own_corpus) == expected
    assert not (own_corpus / "train" / LENGTHS).exists()


@pytest.mark.parametrize("damage", ["cut", "moved", "text"])
def test_a_file_that_cannot_be_true_is_made_anew(
    own_corpus: Path, expected: dict[int, int], damage: str
) -> None:
    lengths(own_corpus)
    path = own_corpus / "train" / LENGTHS
    right = path.read_bytes()
    if damage == "moved":
        np.save(path, np.roll(np.load(path), 1))
    else:
        path.write_bytes(right[:40] if damage == "cut" else b"no array")
    with pytest.raises(UserError, match=r"lengths\.npy: damaged; remove it"):
        verify_split(own_corpus, "train")
    assert lengths(own_corpus) == expected
    assert path.read_bytes() == right


def test_a_split_that_is_replaced_takes_them_along(
    own_corpus: Path, documents: list[str], expected: dict[int, int]
) -> None:
    lengths(own_corpus)
    tokenizer, train = load_tokenizer(own_corpus), own_corpus / "train"
    write_split(documents[:5], tokenizer, train, overwrite=True, progress=False)
    assert not (own_corpus / "train" / LENGTHS).exists()
    assert sum(lengths(own_corpus).values()) == 5
    assert [path.name for path in own_corpus.glob(".train*")] == []
