"""No text gives the id of a special token, whatever the tokenizer's kind."""

import io
import json
import string
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from configs.errors import UserError
from data_pipeline.__main__ import main
from data_pipeline.adopt import adopt_tokenizer
from data_pipeline.manifest import read_manifest, write_manifest
from data_pipeline.shards import verify_split
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from data_pipeline.writer import write_split

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
BERT = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]
WORDS = ["use", "here", "a", "b", "x", "y"]


def unigram(byte_fallback: bool = False, normalized: bool = False) -> tokenizers.Tokenizer:
    """As T5 and XLM-R: the vocabulary holds the special tokens, and letters."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback)]
    letters = ["\u2581", *string.printable[:94]]
    scores = [(piece, 0.0) for piece in pieces] + [(letter, -3.0) for letter in letters]
    made = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3, byte_fallback=byte_fallback))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never"), decoders.Fuse()]
    )
    if normalized:  # as Llama's normaliser, which then writes these names in its own way too
        made.normalizer = normalizers.Prepend("\u2581")
    made.add_special_tokens([AddedToken(name, normalized=normalized) for name in SPECIAL])
    return made


def word_level() -> tokenizers.Tokenizer:
    vocabulary = {word: index for index, word in enumerate([*BERT, *WORDS])}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(BERT)
    return made


def word_piece() -> tokenizers.Tokenizer:
    letters = [f"{prefix}{letter}" for letter in string.printable[:94] for prefix in ("", "##")]
    vocabulary = {word: index for index, word in enumerate([*BERT, *WORDS[:2], *letters])}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.normalizer = normalizers.NFKC()
    made.add_special_tokens(BERT)
    return made


def bytes_bpe(*, ignore_merges: bool = False, special: bool = True) -> tokenizers.Tokenizer:
    """As GPT-2 and Llama 3; with merges that make a special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *alphabet, "</", "</s"])}
    merges = [("<", "/"), ("</", "s"), ("</s", ">")]
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(name, special=special, normalized=False) for name in SPECIAL])
    # Beyond the model's vocabulary, one ordinary and one special: their ids follow by order.
    made.add_tokens([AddedToken("<|turn|>", special=True), AddedToken("    ", special=False)])
    return made


def piece_model(kind: str, **options: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["use the mask here, a b"] * 50),
        model_writer=model,
        model_type=kind,
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


USER_DEFINED = {"user_defined_symbols": ["</s>", "[MASK]"], "byte_fallback": True}
CONTROL = {"control_symbols": ["<mask>"], "byte_fallback": True, "pad_id": 3}

MADE = {
    "unigram": unigram,
    "unigram-bytes": lambda: unigram(byte_fallback=True),
    "unigram-normalized": lambda: unigram(normalized=True),
    "word-level": word_level,
    "word-piece": word_piece,
    "bpe": bytes_bpe,
    "bpe-ignore-merges": lambda: bytes_bpe(ignore_merges=True),
    "bpe-ordinary": lambda: bytes_bpe(special=False),
    "sentencepiece-bpe": lambda: piece_model("bpe", **USER_DEFINED),
    "sentencepiece-unigram": lambda: piece_model("unigram", **USER_DEFINED),
    "sentencepiece-word": lambda: piece_model("word", **USER_DEFINED, add_dummy_prefix=False),
    "sentencepiece-bpe-control": lambda: piece_model("bpe", **CONTROL),
    "sentencepiece-unigram-control": lambda: piece_model("unigram", **CONTROL),
}
TEXTS = [
    "x</s>y", "a <mask> b", "use [MASK] here", "</s>", "<s>", "<pad>", "[SEP]", "[CLS] [PAD]",
    "\uff1cmask\uff1e", "\uff1c/s\uff1e", "a</s></s>", "<|turn|>", "<unk>",
    "\u2581</s>\u2581<mask>",
]  # fmt: skip


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    found = {}
    for name, make in MADE.items():
        source = tmp_path_factory.mktemp("source")
        made = make()
        if isinstance(made, bytes):
            (source / "tokenizer.model").write_bytes(made)
            if name.split("-")[-1] != "control":
                named = {"eos_token": "</s>", "mask_token": "[MASK]"}
                (source / "tokenizer_config.json").write_text(json.dumps(named))
        else:
            made.save(str(source / "tokenizer.json"))
        found[name] = adopt_tokenizer(source, source / "corpus")
    return found


def special_ids(tokenizer: Tokenizer) -> set[int]:
    ids = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id}
    return {index for index in ids if index is not None}


@pytest.mark.parametrize("name", MADE)
def test_mentions_are_text(adopted: dict[str, Tokenizer], name: str) -> None:
    tokenizer = adopted[name]
    assert len(special_ids(tokenizer)) >= 3
    for text in TEXTS:
        [ids] = tokenizer.encode([text])
        assert not special_ids(tokenizer) & set(ids), text
        if name in ("bpe", "bpe-ignore-merges", "bpe-ordinary", "unigram-bytes"):
            forms = {0xFF1C: "<", 0xFF1E: ">"} | ({0x2581: " "} if "unigram" in name else {})
            assert tokenizer.decode(ids) in (text, text.translate(forms))


@given(st.lists(st.sampled_from([*SPECIAL, *BERT, "<", "/", "s>", " ", "\uff1c", "a"]), max_size=6))
def test_no_mixture_is_special(adopted: dict[str, Tokenizer], parts: list[str]) -> None:
    for tokenizer in adopted.values():
        assert not special_ids(tokenizer) & set(tokenizer.encode(["".join(parts)])[0])


def test_normalised_special_tokens_keep_their_names(adopted: dict[str, Tokenizer]) -> None:
    """Asked by id, the library says how the normaliser writes them: a name of no piece."""
    tokenizer = adopted["unigram-normalized"]
    assert [tokenizer.id_to_piece(index) for index in range(5)] == SPECIAL
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id) == (0, 1, 4)


def test_other_text_is_encoded_as_ever(adopted: dict[str, Tokenizer]) -> None:
    text = "use it here:    a, b\n"
    for name in ("unigram", "unigram-bytes", "word-level", "word-piece", "bpe"):
        made = MADE[name]()
        assert not isinstance(made, bytes)
        assert adopted[name].encode([text]) == [made.encode(text, add_special_tokens=False).ids]
    bpe = adopted["bpe"]
    assert bpe.id_to_piece(bpe.eos_id) == "</s>", "names stay"
    assert bpe.id_to_piece(bpe.vocab_size - 1) == "    ", "an ordinary added token is text"
    assert bpe.vocab_size - 1 in bpe.encode([text])[0]


def test_documents_that_mention_special_tokens(
    adopted: dict[str, Tokenizer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "tokenizer.json"
    unigram().save(str(source))
    tokenizer = adopt_tokenizer(source, tmp_path / "corpus")
    texts = ["a b"] * 150 + ["x</s>y <mask> [MASK]"] + ["a b"] * 49
    manifest = write_split(texts, tokenizer, tmp_path / "corpus/train", progress=False)
    assert manifest.documents == 200
    assert (manifest.lossless, manifest.round_trips, manifest.first_loss) == (True, 200, None)
    assert verify_split(tmp_path / "corpus", "train") == manifest
    texts = ["a b"] * 150 + ["\u4e00 is unknown"]
    manifest = write_split(texts, tokenizer, tmp_path / "corpus/lossy", progress=False)
    assert (manifest.lossless, manifest.first_loss) == (False, 150)
    assert "document 150, from character 0, '\u4e00 is unknown' comes back as" in caplog.text


def test_the_unknown_token_tells_of_any_document(tmp_path: Path) -> None:
    """Far behind the documents that are all tried, between those that are."""
    source = tmp_path / "tokenizer.json"
    unigram().save(str(source))
    tokenizer = adopt_tokenizer(source, tmp_path / "corpus")
    texts = ["a " * 200_000] * 3 + ["a", "\u4e00"]
    manifest = write_split(texts, tokenizer, tmp_path / "corpus/train", progress=False)
    assert (manifest.lossless, manifest.first_loss) == (False, 4)
    assert manifest.round_trips == 3, "the first two, and the unknown one"


def test_verify_counts_the_special_ids(corpus: Path, own_corpus: Path) -> None:
    """As in corpora of earlier versions, whose tokenizers read EOS out of the text."""
    manifest = read_manifest(own_corpus / "valid")
    tokenizer = load_tokenizer(own_corpus)

    class Careless:
        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def encode(self, texts: list[str]) -> list[list[int]]:
            return [[*ids, tokenizer.eos_id, *ids] for ids in tokenizer.encode(texts)]

    with pytest.raises(UserError, match="special id 2 6 times where 3 is right"):
        write_split(["a", "b", "c"], Careless(), own_corpus / "new", progress=False)  # type: ignore[arg-type]
    assert not (own_corpus / "new").exists()
    from data_pipeline import writer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "miscounted", lambda *arguments: "")
        careless = Careless()
        write_split(["a", "b", "c"], careless, own_corpus / "new", progress=False)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="special id 2 6 times where 3 is right"):
        verify_split(own_corpus, "new")
    write_manifest(manifest, own_corpus / "valid")
    verify_split(own_corpus, "valid")


def test_an_unknown_token_that_ends_documents_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, "<|endoftext|>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<|endoftext|>"])
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = adopt_tokenizer(tmp_path / "tokenizer.json", tmp_path / "corpus")
    assert tokenizer.encode(["a a"]) == [[1, 1]]
    (tmp_path / "a.txt").write_text("a\nb\n")
    words = ["tokenize", f"{tmp_path}/a.txt", "--corpus", f"{tmp_path}/corpus", "--split", "train"]
    assert main(words) == 2
    assert "its unknown token serves as BOS, EOS, PAD or mask too" in capsys.readouterr().err
