from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data_pipeline.indexed import indexed_dataset
from data_pipeline.manifest import read_manifest, write_manifest
from data_pipeline.shards import open_split, verify_split, write_split
from data_pipeline.tokenizer import load_tokenizer, train_sentencepiece


@pytest.fixture(scope="module")
def stream(corpus: Path, documents: list[str]) -> list[int]:
    """What the split has to hold, straight from the tokenizer."""
    tokenizer = load_tokenizer(corpus)
    return [i for ids in tokenizer.encode(documents) for i in [*ids, tokenizer.eos_id]]


def test_the_stream_is_the_documents(corpus: Path, documents: list[str], stream: list[int]) -> None:
    split = open_split(corpus, "train")
    assert len(split.manifest.shards) > 2
    assert split.num_tokens == len(stream)
    assert split.num_documents == len(documents)
    assert split.manifest.bytes == sum(len(text.encode()) for text in documents)
    assert split.manifest.characters == sum(map(len, documents))
    assert split.manifest.lossless
    tokens = split.tokens(0, split.num_tokens)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == stream
    assert Counter(stream) == {i: n for i, n in enumerate(split.counts().tolist()) if n}
    assert split.counts().shape == (500,)
    starts = split.document_starts().tolist()
    tokenizer = load_tokenizer(corpus)
    assert [tokenizer.decode(tokens[a:b]) for a, b in pairwise(starts)] == documents


def test_any_range_across_shards(corpus: Path, stream: list[int]) -> None:
    split = open_split(corpus, "train")
    starts = split.document_starts()
    numbers = np.searchsorted(starts, np.arange(len(stream)), side="right") - 1
    borders = np.cumsum([shard.tokens for shard in split.manifest.shards])[:-1]
    ranges = [(b - 3, b + d) for b in borders for d in (-3, 0, 1, 3000)]
    rng = np.random.default_rng(0)
    ranges += [tuple(sorted(pair)) for pair in rng.integers(0, len(stream), (50, 2))]
    for start, stop in [*ranges, (0, 0), (0, len(stream)), (len(stream), len(stream))]:
        start, stop = int(start), min(int(stop), len(stream))
        assert split.tokens(start, stop).tolist() == stream[start:stop]
        assert np.array_equal(split.document_of(start, stop), numbers[start:stop])
        assert split.document_of(start, stop).dtype == np.int64


def test_megatron_reads_the_shards(corpus: Path, documents: list[str]) -> None:
    tokenizer = load_tokenizer(corpus)
    texts = []
    for shard in open_split(corpus, "train").manifest.shards:
        dataset = indexed_dataset().IndexedDataset(str(corpus / "train" / shard.name))
        assert len(dataset) == shard.documents
        assert dataset.document_indices.tolist() == list(range(shard.documents + 1))
        assert dataset[0].dtype == np.uint16
        texts += [tokenizer.decode(dataset[i]) for i in range(len(dataset))]
        assert all(dataset[i][-1] == tokenizer.eos_id for i in range(len(dataset)))
    assert texts == documents


def test_writing_again_gives_the_same_bytes(
    corpus: Path, own_corpus: Path, documents: list[str]
) -> None:
    tokenizer = load_tokenizer(corpus)
    with pytest.raises(UserError, match="exists already"):
        write_split(documents, tokenizer, own_corpus / "train", progress=False)
    again = write_split(
        documents,
        tokenizer,
        own_corpus / "train",
        shard_tokens=2000,
        overwrite=True,
        progress=False,
    )
    assert again == open_split(corpus, "train").manifest


def test_an_error_half_way_leaves_no_split(own_corpus: Path, documents: list[str]) -> None:
    def failing():
        yield from documents * 10
        raise UserError("a.jsonl:401: bad")

    before = sorted(own_corpus.rglob("*"))
    with pytest.raises(UserError, match="401"):
        write_split(failing(), load_tokenizer(own_corpus), own_corpus / "new", progress=False)
    with pytest.raises(UserError, match="no document to write"):
        write_split([], load_tokenizer(own_corpus), own_corpus / "new", progress=False)
    assert sorted(own_corpus.rglob("*")) == before


def test_skipped_counts_are_recorded(own_corpus: Path) -> None:
    tokenizer = load_tokenizer(own_corpus)
    skipped = {"empty": 2}
    manifest = write_split(["a"], tokenizer, own_corpus / "x", skipped=skipped, progress=False)
    assert (manifest.skipped_empty, manifest.skipped_bad) == (2, 0)


def damaged(corpus: Path, name: str, edit) -> None:
    path = corpus / "train" / name
    path.write_bytes(edit(path.read_bytes()))


def test_truncated_and_missing_files(own_corpus: Path) -> None:
    damaged(own_corpus, "00001.bin", lambda content: content[:-2])
    with pytest.raises(UserError, match=r"00001\.bin: \d+ bytes, the manifest says .*restore"):
        open_split(own_corpus, "train")
    (own_corpus / "train/00001.bin").unlink()
    with pytest.raises(UserError, match=r"00001\.bin: missing"):
        open_split(own_corpus, "train")
    damaged(own_corpus, "00000.idx", lambda content: content[:-8])
    with pytest.raises(UserError, match=r"00000\.idx: \d+ bytes"):
        open_split(own_corpus, "train")


@pytest.mark.parametrize("byte", [0, 12, 17, 18, 26, -1, -9])
def test_a_damaged_index_is_found_at_opening(own_corpus: Path, byte: int) -> None:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[byte] ^= 0x55
        return bytes(changed)

    damaged(own_corpus, "00000.idx", flip)
    with pytest.raises(UserError, match=r"00000\.idx: "):
        verify_split(own_corpus, "train")
    if byte >= 0:
        with pytest.raises(UserError, match=r"00000\.idx: "):
            open_split(own_corpus, "train")


def test_verify_finds_a_flipped_bit(own_corpus: Path) -> None:
    assert verify_split(own_corpus, "train") == open_split(own_corpus, "train").manifest
    damaged(own_corpus, "00001.bin", lambda c: c[:50] + bytes([c[50] ^ 1]) + c[51:])
    open_split(own_corpus, "train")  # too long a look for every opening
    with pytest.raises(UserError, match=r"00001\.bin: damaged, its SHA-256"):
        verify_split(own_corpus, "train")


def test_verify_reads_the_ids_themselves(own_corpus: Path) -> None:
    """Not only the hashes: a wrong writer would have signed its mistake."""
    from hashlib import sha256

    def sign(content: bytes) -> None:
        (own_corpus / "train/00000.bin").write_bytes(content)
        manifest = read_manifest(own_corpus / "train")
        first, *others = manifest.shards
        first = replace(first, sha256_bin=sha256(content).hexdigest())
        write_manifest(replace(manifest, shards=(first, *others)), own_corpus / "train")

    good = (own_corpus / "train/00000.bin").read_bytes()
    sign((500).to_bytes(2, "little") + good[2:])
    with pytest.raises(UserError, match="holds id 500, but the vocabulary ends at 499"):
        verify_split(own_corpus, "train")
    sign((7 if good[0] != 7 else 8).to_bytes(2, "little") + good[2:])
    with pytest.raises(UserError, match=r"counts\.npy: does not count"):
        verify_split(own_corpus, "train")
    sign(good[:-2] + (7).to_bytes(2, "little"))
    with pytest.raises(UserError, match="does not end with EOS"):
        verify_split(own_corpus, "train")


def test_damaged_counts(own_corpus: Path) -> None:
    damaged(own_corpus, "counts.npy", lambda content: content[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"counts\.npy: missing or damaged"):
        open_split(own_corpus, "train").counts()


def test_another_tokenizer(own_corpus: Path, documents: list[str]) -> None:
    train_sentencepiece(documents, own_corpus / "tokenizer.model", 501)
    with pytest.raises(UserError, match="made by another tokenizer"):
        open_split(own_corpus, "train")


def test_other_special_tokens(own_corpus: Path) -> None:
    (own_corpus / "tokenizer_config.json").write_text('{"bos_token": "</s>"}')
    with pytest.raises(UserError, match="made by another tokenizer"):
        open_split(own_corpus, "train")


def test_an_unknown_split_names_those_there(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'test' \(there: train, valid\)"):
        open_split(corpus, "test")
