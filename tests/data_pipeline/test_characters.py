import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import UserError
from data_pipeline.__main__ import main
from data_pipeline.adopt import make_character_tokenizer
from data_pipeline.characters import ALPHABETS, CharacterTokenizer, write_character_tokenizer
from data_pipeline.huggingface import HuggingFaceTokenizer
from data_pipeline.manifest import read_manifest
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("characters")
    for name in ALPHABETS:
        make_character_tokenizer(name, folder / name)
    return folder


def test_text8_has_the_published_vocabulary(corpora: Path) -> None:
    tokenizer = load_tokenizer(corpora / "text8")
    assert isinstance(tokenizer, CharacterTokenizer)
    pieces = [tokenizer.id_to_piece(index) for index in range(tokenizer.vocab_size)]
    assert pieces == ["<unk>", "<s>", "</s>", "<pad>", " ", *"abcdefghijklmnopqrstuvwxyz"]
    special = tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id
    assert special == (0, 1, 2, 3)
    assert tokenizer.mask_id is None, "[MASK] is the model's, one past the vocabulary"


def test_the_bases_of_dna(corpora: Path) -> None:
    tokenizer = load_tokenizer(corpora / "dna")
    assert tokenizer.vocab_size == 4 + 5
    assert tokenizer.encode(["ACGTN", ""]) == [[4, 5, 6, 7, 8], []]
    assert tokenizer.decode([1, 4, 8, 2, 3, 0, 9, 500]) == "AN", "special ids and V are dropped"


@pytest.mark.parametrize("name", ALPHABETS)
def test_every_text_of_the_alphabet_survives(name: str, corpora: Path) -> None:
    tokenizer = load_tokenizer(corpora / name)
    drawn = np.random.default_rng(0).choice(list(ALPHABETS[name]), size=5000)
    texts = ["", *ALPHABETS[name], "".join(drawn)]
    encoded = tokenizer.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert [len(ids) for ids in encoded] == [len(text) for text in texts]


@given(text=st.text())
@example(text="<s></s> <unk>[MASK]\n\t\0\U0010ffff{ab}")
def test_the_table_gives_the_ids_of_the_file(corpora: Path, text: str) -> None:
    """Of any text: other characters are unknown, one by one, and no special token is read."""
    ours = load_tokenizer(corpora / "text8")
    theirs = HuggingFaceTokenizer(corpora / "text8/tokenizer.json")
    [ids] = ours.encode([text])
    assert [ids] == theirs.encode([text])
    assert len(ids) == len(text)
    assert not {1, 2, 3} & set(ids)
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode(ids) == "".join(c for c in text if c in ALPHABETS["text8"])


def test_a_file_that_was_changed_is_another_tokenizer(corpora: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    write_character_tokenizer(path, "xyz")
    assert isinstance(load_tokenizer(path), CharacterTokenizer)
    described = json.loads(path.read_text())
    described["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(described))
    assert type(load_tokenizer(path)) is HuggingFaceTokenizer
    with pytest.raises(UserError, match="no tokenizer of characters"):
        CharacterTokenizer(path)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = str(tmp_path / "corpus")
    words = ["tokenizer", "--kind", "characters", "--alphabet", "text8", "--out", corpus]
    assert main(words) == 0
    assert "31 ids" in capsys.readouterr().out
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("some words\nof text\n")
    (tmp_path / "b.txt").write_text("Some words\n")
    for name in ("a", "b"):
        file = str(tmp_path / f"{name}.txt")
        assert main(["tokenize", file, "--corpus", corpus, "--split", name]) == 0
    split = open_split(tmp_path / "corpus", "a")
    assert load_tokenizer(tmp_path / "corpus").decode(split.tokens(0, 10).tolist()) == "some words"
    assert split.manifest.lossless
    assert split.manifest.bytes == len("some words" + "of text"), "a byte is a character"
    assert not read_manifest(tmp_path / "corpus/b").lossless


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--alphabet", "dna"], "--kind characters and --alphabet go together"),
        (["--kind", "characters", "--train", "a.txt"], "go together"),
        (["--kind", "bpe", "--adopt", "a.json"], "--kind bpe belongs to --train"),
        (
            ["--kind", "characters", "--alphabet", "dna", "--vocab-size", "9"],
            "--vocab-size belongs to --train: an alphabet has its own",
        ),
        (
            ["--kind", "characters", "--alphabet", "dna", "--bos-token", "<s>"],
            "belong to --adopt",
        ),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tokenizer", *words, "--out", str(tmp_path / "corpus")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()
