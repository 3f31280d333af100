"""The exported tokenizer gives the ids and the text of the project's own."""

import json
import shutil
from pathlib import Path
from pydoc_data import topics

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from configs.errors import UserError
from data_pipeline.adopt import make_character_tokenizer
from data_pipeline.tokenizer import load_tokenizer, train_sentencepiece
from model.architectures.dit import DiT
from model.architectures.encoder_decoder import EncoderDecoder
from model.networks.config import ModelConfig
from tools.convert.tokenizer_files import files

TEXTS = [
    "",
    "The if statement is used for conditional execution:",
    "  two  spaces, a\ttab\nand\n\nnewlines ",
    "äöü 漢字 🙂 \u0000 <s> </s> 3.14159",
    "x" * 300,
    "def f(x):\n    return x ** 2\n" * 20,
]


def exported(corpus: Path, folder: Path, model: ModelConfig) -> PreTrainedTokenizerFast:
    for name, text in files(corpus, model, 64).items():
        (folder / name).write_text(text, encoding="utf-8")
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_sentencepiece_becomes_a_tokenizer_of_the_same_ids(corpus: Path, tmp_path: Path) -> None:
    ours = load_tokenizer(corpus)
    theirs = exported(corpus, tmp_path, DiT(vocab_size=ours.vocab_size))
    real = list(topics.topics.values())[:20]
    for text in [*TEXTS, "loss \u2588\u2583\u2581, a\u2581b", *real]:
        ids = ours.encode([text])[0]
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == text
    assert theirs.mask_token_id == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    assert theirs.pad_token_id == ours.pad_id
    assert len(theirs) == ours.vocab_size + 1


def test_characters_beyond_the_vocabulary_are_spelt_in_bytes(corpus: Path, tmp_path: Path) -> None:
    ours = load_tokenizer(corpus)
    theirs = exported(corpus, tmp_path, DiT(vocab_size=ours.vocab_size))
    text = "äöü 漢字 🙂"
    assert theirs(text)["input_ids"] == ours.encode([text])[0]
    assert theirs.decode(theirs(text)["input_ids"]) == text


def test_a_tokenizer_json_stays_what_it_is(corpus: Path, tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4}, "[UNK]"
        )
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    (tmp_path / "in").mkdir()
    made.save(str(tmp_path / "in" / "tokenizer.json"))
    (tmp_path / "out").mkdir()
    theirs = exported(tmp_path / "in", tmp_path / "out", DiT(vocab_size=5))
    assert theirs("a b a")["input_ids"] == [4, 0, 4]
    assert theirs.mask_token_id == 5
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("[CLS]", "[SEP]")


def test_sources_and_targets_of_a_genie_are_bare(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4}, "[UNK]"
        )
    )
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    (tmp_path / "in").mkdir()
    made.save(str(tmp_path / "in" / "tokenizer.json"))
    for name, model, wanted in (
        ("framed", DiT(vocab_size=5), [1, 4, 2]),
        ("bare", EncoderDecoder(vocab_size=5), [4]),
    ):
        (tmp_path / name).mkdir()
        assert exported(tmp_path / "in", tmp_path / name, model)("a")["input_ids"] == wanted


def test_characters_stay_characters(tmp_path: Path) -> None:
    ours = make_character_tokenizer("text8", tmp_path / "corpus")
    theirs = exported(tmp_path / "corpus", tmp_path, DiT(vocab_size=ours.vocab_size))
    for text in ["", "two  spaces ", "Upper, \n<s> [MASK] é🙂", "x" * 300]:
        ids = ours.encode([text])[0]
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    assert (theirs.mask_token_id, len(theirs)) == (31, 32)


def test_another_vocabulary_is_refused(corpus: Path) -> None:
    with pytest.raises(UserError, match="vocabulary mismatch: the model has 90 ids"):
        files(corpus, DiT(vocab_size=90), 64)


def test_a_trained_tokenizer_of_another_text(tmp_path: Path) -> None:
    """Merges that make one piece in several ways."""
    words = ["aab", "abab", "aaaa", "baba", "abba"] * 50
    train_sentencepiece([" ".join(words)], tmp_path / "tokenizer.model", 275)
    ours = load_tokenizer(tmp_path)
    out = Path(shutil.copytree(tmp_path, tmp_path / "out"))
    theirs = exported(tmp_path / "tokenizer.model", out, DiT(vocab_size=275))
    for text in ("aabababa abbaab", "aaaaaaa", "bababaab  abba"):
        assert theirs(text)["input_ids"] == ours.encode([text])[0]
