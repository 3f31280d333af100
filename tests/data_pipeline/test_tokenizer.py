import hashlib
import json
import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import UserError
from data_pipeline.adopt import adopt_tokenizer
from data_pipeline.huggingface import HuggingFaceTokenizer
from data_pipeline.tokenizer import is_lossless, load_tokenizer, train_sentencepiece


@given(text=st.text() | st.text(alphabet=" \t\n\r\0▁ab<s>é\u0301😀", max_size=30))
@example(text="    if x:\n\n\treturn   y  \n")
@example(text="▁▁ ▁ <s></s><unk><0x41><pad>\u2585\ufffd\ufeff")
def test_any_text_survives(corpus: Path, text: str) -> None:
    tokenizer = load_tokenizer(corpus)
    [ids] = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text
    assert not {0, 1, 2, 3} & set(ids), "text never becomes a special token"


def test_every_character_survives(corpus: Path) -> None:
    characters = [chr(c) for c in range(0x3000) if not 0xD800 <= c < 0xE000]
    tokenizer = load_tokenizer(corpus)
    lost = [c for c in characters if tokenizer.decode(tokenizer.encode([c])[0]) != c]
    assert not lost


def test_ids_and_special_tokens(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer.model")
    special = (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    assert special == (0, 1, 2, 3)
    assert tokenizer.mask_id is None
    assert tokenizer.vocab_size == 500
    assert tokenizer.id_to_piece(4) == "\n"
    content = (corpus / "tokenizer.model").read_bytes()
    assert tokenizer.sha256 == hashlib.sha256(content).hexdigest()
    [ids] = tokenizer.encode(["some words"])
    assert tokenizer.decode([1, *ids, 2, 3, 500]) == "some words", "special ids and V are dropped"


def test_runs_of_spaces_are_single_tokens(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus)
    assert len(tokenizer.encode([" " * 4])[0]) == 1


def test_training_is_deterministic(documents: list[str], corpus: Path, tmp_path: Path) -> None:
    train_sentencepiece(iter(documents), tmp_path / "again.model", 500)
    assert (tmp_path / "again.model").read_bytes() == (corpus / "tokenizer.model").read_bytes()


def test_long_documents_are_learnt_from(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=7)) for _ in range(20)]
    one_line = " ".join(rng.choices(words, k=20_000))
    # The words stand far behind the length at which SentencePiece drops or refuses a line.
    train_sentencepiece(["z" * 200_000 + " " + one_line], tmp_path / "long.model", 350)
    [ids] = load_tokenizer(tmp_path / "long.model").encode([" ".join(words)])
    assert len(ids) < 3 * len(words)


def test_training_refuses_what_cannot_be(documents: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    with pytest.raises(UserError, match=r"100000 is too large .* at most (\d+)") as large:
        train_sentencepiece(documents, path, 100_000)
    largest = int(str(large.value).split("at most ")[1].split(";")[0])
    train_sentencepiece(documents, path, largest)
    assert load_tokenizer(path).vocab_size == largest
    with pytest.raises(UserError, match=r"270 is too small .* at least (\d+)") as small:
        train_sentencepiece(documents, path, 270)
    smallest = int(str(small.value).split("at least ")[1])
    train_sentencepiece(documents, path, smallest)
    assert load_tokenizer(path).vocab_size == smallest
    with pytest.raises(UserError, match="no text"):
        train_sentencepiece(["", "\n"], path, 300)


@pytest.mark.parametrize("error", [UserError("a.jsonl:7: bad"), KeyboardInterrupt()])
def test_an_error_of_the_documents_comes_through(tmp_path: Path, error: BaseException) -> None:
    def failing():
        yield "some text"
        raise error

    with pytest.raises(type(error)) as caught:
        train_sentencepiece(failing(), tmp_path / "x.model", 300)
    assert caught.value is error
    assert not (tmp_path / "x.model").exists()


def test_loading_what_is_no_tokenizer(own_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.model").write_text("no model")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
    with pytest.raises(UserError, match=r"bad\.json: not a Hugging Face"):
        load_tokenizer(tmp_path / "bad.json")
    with pytest.raises(UserError, match="no tokenizer here"):
        load_tokenizer(tmp_path)
    (own_corpus / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="holds both"):
        load_tokenizer(own_corpus)


def save_hugging_face(path: Path, special: list[str], *, lossless: bool = True) -> Path:
    """A byte-level BPE like GPT-2's; lossy where it is to lower the case."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if not lossless:
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["some words of a text"] * 5, trainer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    path.parent.mkdir(exist_ok=True)
    tokenizer.save(str(path))
    return path


def test_adopting_hugging_face(tmp_path: Path) -> None:
    special = ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"]
    source = save_hugging_face(tmp_path / "source/tokenizer.json", special)
    tokenizer = adopt_tokenizer(source, tmp_path / "corpus")
    ids = (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
        tokenizer.mask_id,
        tokenizer.unk_id,
    )
    assert ids == (0, 1, 2, 3, 4)
    assert tokenizer.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    text = "some [MASK] words, [SEP] ünd\n   ▁ more words than the file's truncation allows"
    [encoded] = tokenizer.encode([text])
    assert tokenizer.decode([0, *encoded, 1, 2, 3, tokenizer.vocab_size]) == text
    assert not set(ids) & set(encoded), "text never becomes a special token"
    assert load_tokenizer(tmp_path / "corpus").encode([text]) == [encoded]


def test_a_single_end_of_text_token_serves_as_all(tmp_path: Path) -> None:
    source = save_hugging_face(tmp_path / "source/tokenizer.json", ["<|endoftext|>"])
    tokenizer = adopt_tokenizer(source.parent, tmp_path / "corpus")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 0)
    assert tokenizer.mask_id is None
    sidecar = json.loads((tmp_path / "corpus/tokenizer_config.json").read_text())
    assert sidecar["bos_token"] == "<|endoftext|>"


def test_missing_bos_says_what_to_pass(tmp_path: Path) -> None:
    source = save_hugging_face(tmp_path / "source/tokenizer.json", ["<go>", "</s>"])
    with pytest.raises(UserError, match=r"no bos_token found .* --bos-token TOKEN"):
        adopt_tokenizer(source, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists(), "nothing half-written"
    with pytest.raises(UserError, match="has no token '<nope>'"):
        adopt_tokenizer(source, tmp_path / "corpus", bos_token="<nope>")
    adopt_tokenizer(source, tmp_path / "corpus", bos_token="<go>")
    assert load_tokenizer(tmp_path / "corpus").bos_id == 0
    with pytest.raises(UserError, match="exists already"):
        adopt_tokenizer(source, tmp_path / "corpus", bos_token="<go>")


def test_what_fails_where_it_will_lie_is_not_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_hugging_face(tmp_path / "source/tokenizer.json", ["<s>", "</s>"])
    monkeypatch.setattr(HuggingFaceTokenizer, "id_to_piece", lambda self, index: "<wrong>")
    with pytest.raises(UserError, match="has no token '<wrong>'"):
        adopt_tokenizer(source, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_the_sidecar_of_the_source_is_believed(tmp_path: Path) -> None:
    source = save_hugging_face(tmp_path / "source/tokenizer.json", ["<go>", "</s>", "<s>"])
    config = {"bos_token": {"content": "<go>"}, "eos_token": None, "model_max_length": 3}
    (source.parent / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = adopt_tokenizer(source, tmp_path / "corpus")
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    (source.parent / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="not a tokenizer configuration"):
        adopt_tokenizer(source, tmp_path / "other")


def test_is_lossless_tells_the_difference(tmp_path: Path) -> None:
    special = ["<s>", "</s>"]
    good = load_tokenizer(save_hugging_face(tmp_path / "good.json", special))
    bad = load_tokenizer(save_hugging_face(tmp_path / "bad.json", special, lossless=False))
    assert is_lossless(good, ["some words", "Some"])
    assert not is_lossless(bad, ["some words", "Some"])
