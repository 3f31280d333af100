"""Pairs of a source and a target, from JSON lines to samples."""

import re
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.__main__ import main
from data_pipeline.pairs import Pairs
from data_pipeline.paragraphs import ParagraphConfig, Paragraphs
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer
from model.draws import Draws

MASK = 10_000
DRAWS = Draws(seed=0, split="train", batch=8)


@pytest.fixture
def pairs(corpus: Path, tmp_path: Path) -> Path:
    """A corpus with a split of three pairs."""
    own = tmp_path / "corpus"
    own.mkdir()
    (own / "tokenizer.model").write_bytes((corpus / "tokenizer.model").read_bytes())
    file = tmp_path / "pairs.jsonl"
    lines = [f'{{"q": "source {n}", "a": "the target {n} of it"}}' for n in range(3)]
    file.write_text("\n".join(lines), encoding="utf-8")
    command = ["tokenize", str(file), "--pairs", "q", "a", "--corpus", str(own), "--split", "train"]
    assert main(command) == 0
    return own


def test_pairs_come_as_they_were_written(pairs: Path) -> None:
    tokenizer = load_tokenizer(pairs)
    found = Pairs(
        open_split(pairs, "train", tokenizer=tokenizer), source_length=20, sequence_length=30
    )
    assert len(found) == 3
    arrays = found.read(np.array([2, 0]), np.array([0, 1]))
    assert arrays["tokens"].shape == (2, 30)
    for row, number in enumerate((2, 0)):
        source = arrays["source"][row][arrays["source_valid"][row]]
        target = arrays["tokens"][row]
        target = target[target != tokenizer.pad_id]
        assert tokenizer.decode(source.tolist()) == f"source {number}"
        assert tokenizer.decode(target.tolist()) == f"the target {number} of it"


def test_a_pair_is_one_paragraph(pairs: Path) -> None:
    tokenizer = load_tokenizer(pairs)
    split = open_split(pairs, "train", tokenizer=tokenizer)
    found = Paragraphs(
        split,
        ParagraphConfig(min_length=4),
        source_length=64,
        sequence_length=64,
        mask=MASK,
        uniforms=DRAWS,
    )
    assert len(found) == 3
    source, target = Pairs(split, source_length=20, sequence_length=30).texts(1)
    expected = [*source.tolist(), tokenizer.eos_id, *target.tolist()]
    assert found.paragraph(1).tolist() == expected


def test_long_sides_are_cut_and_counted(pairs: Path) -> None:
    split = open_split(pairs, "train", tokenizer=load_tokenizer(pairs))
    found = Pairs(split, source_length=2, sequence_length=30)
    assert found.notes == [
        f"{split.directory}: 3 of 3 sources are longer than 2 tokens and are cut"
    ]
    assert bool(found.read(np.array([0]), np.array([0]))["source_valid"].all())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"q": "a", "a": " "}', "one of q, a is empty"),
        ('{"q": "a"}', "no field 'a'.*--pairs"),
    ],
)
def test_half_a_pair_is_an_error(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text, encoding="utf-8")
    command = ["tokenize", str(file), "--pairs", "q", "a", "--corpus", str(pairs), "--split", "x"]
    assert main(command) == 2
    assert re.search(f"bad.jsonl:1: .*{told}", capsys.readouterr().err)
