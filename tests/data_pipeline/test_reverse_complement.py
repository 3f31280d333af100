from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from configs.load import load
from data_pipeline.adopt import make_character_tokenizer
from data_pipeline.loader import Stream
from data_pipeline.packing import pack, segments_of
from data_pipeline.reverse_complement import ReverseComplements, complement_ids
from data_pipeline.shards import Split, open_split
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from data_pipeline.writer import write_split
from model.draws import Draws
from pretrain.config import RunConfig

DRAWS = Draws(seed=3, split="train", batch=1)


def genome(seed: int, length: int, weights: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)) -> str:
    """Independent bases."""
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), size=length, p=weights))


@pytest.fixture(scope="module")
def dna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("dna") / "corpus"
    tokenizer = make_character_tokenizer("dna", corpus)
    documents = [genome(seed, 10 + 7 * seed) + "N" for seed in range(40)]
    write_split(documents, tokenizer, corpus / "train", progress=False)
    return corpus


@pytest.fixture(scope="module")
def tokenizer(dna: Path) -> Tokenizer:
    return load_tokenizer(dna)


@pytest.fixture(scope="module")
def split(dna: Path) -> Split:
    return open_split(dna, "train")


def both(split: Split, tokenizer: Tokenizer, rate: float, how: Any = "wrap", **more: Any) -> Any:
    packing = pack(split, 16, how, **more)
    return packing, ReverseComplements(packing, split, tokenizer, rate=rate, uniforms=DRAWS)


def test_a_known_answer(split: Split, tokenizer: Tokenizer) -> None:
    _, samples = both(split, tokenizer, 1.0)
    a, c, g, t, n = range(4, 9)
    bos, eos, pad = 1, 2, 3
    tokens = np.array([[bos, a, a, c, n, eos, g, g, eos], [bos, t, c, eos] + [pad] * 5])
    found = samples.reversed(tokens, tokens != pad)
    expected = [[bos, c, c, eos, n, g, t, t, eos], [bos, g, a, eos] + [pad] * 5]
    assert found.tolist() == expected
    assert samples.reversed(found, tokens != pad).tolist() == tokens.tolist()


@pytest.mark.parametrize("how", ["wrap", "pad"])
def test_each_sample_is_one_of_the_strands_at_the_rate(
    how: str, split: Split, tokenizer: Tokenizer
) -> None:
    packing, samples = both(split, tokenizer, 0.3, how)
    positions = np.arange(4000)
    indices = positions % len(packing)
    plain, found = packing.read(indices), samples.read(indices, positions)
    other = samples.reversed(plain["tokens"], plain["valid"])
    is_other = (found["tokens"] == other).all(axis=1)
    assert (is_other | (found["tokens"] == plain["tokens"]).all(axis=1)).all()
    assert abs(is_other.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    assert (found["valid"] == plain["valid"]).all()
    assert (samples.document_of(indices) == packing.document_of(indices)).all()
    assert len(samples) == len(packing)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_none_and_all(rate: float, split: Split, tokenizer: Tokenizer) -> None:
    packing, samples = both(split, tokenizer, rate)
    indices = np.arange(len(packing))
    tokens, valid = packing.read(indices).values()
    expected = samples.reversed(tokens, valid) if rate else tokens
    assert (samples.read(indices, indices)["tokens"] == expected).all()


def test_the_strand_follows_from_the_position_alone(split: Split, tokenizer: Tokenizer) -> None:
    """So no layout changes it, and an epoch later it is drawn again."""
    packing, samples = both(split, tokenizer, 0.5)
    stream = Stream(samples, key=5)
    positions = np.arange(3 * len(packing))
    whole = stream.batch(positions)["tokens"]
    for part in (positions[::2], positions[1::3], positions[:1]):
        assert (stream.batch(part)["tokens"] == whole[part]).all()
    epochs = whole.view(3, len(packing), 16).sort(dim=1).values
    assert (epochs[0] != epochs[1]).any()


def test_segments_are_those_of_the_mirrored_documents(split: Split, tokenizer: Tokenizer) -> None:
    packing, samples = both(split, tokenizer, 1.0, segments=True)
    indices = np.arange(len(packing))
    found = samples.read(indices, indices)
    assert (found["segment"] == segments_of(split, found["tokens"])["segment"]).all()
    assert (found["segment"] != packing.read(indices)["segment"]).any()


def test_other_tokenizers_are_refused(corpus: Path, tmp_path: Path) -> None:
    for other in (load_tokenizer(corpus), make_character_tokenizer("text8", tmp_path / "text8")):
        with pytest.raises(UserError, match=r"data\.reverse_complement: the corpus is not one of"):
            complement_ids(other)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.reverse_complement=1.5"], r"reverse_complement must lie in \[0, 1\], not 1.5"),
        (
            ["data.reverse_complement=0.5", "data.packing=pairs", "data.source_length=8"],
            "packing pairs has no strands",
        ),
    ],
)
def test_settings_that_cannot_be(words: list[str], told: str, root: Path) -> None:
    with pytest.raises(UserError, match=told):
        load(RunConfig, [root / "configs/tiny.yaml"], words)
