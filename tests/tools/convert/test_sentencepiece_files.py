"""SentencePiece models of every kind give the same ids once they are exported."""

import io
import json
import random
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
import sentencepiece
from small_models import random_weights, run_of, save_weights, small_genie
from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from configs.errors import RunError, UserError
from data_pipeline.tokenizer import load_tokenizer
from model.architectures.dit import DiT
from model.networks.build import build
from tools.convert import tokenizer_files
from tools.convert.to_hf import to_hf
from tools.convert.tokenizer_check import NAMES, PLACES, TEXTS
from tools.convert.tokenizer_files import files

DOCUMENTS = list(topics.topics.values())
LINES = [line for text in DOCUMENTS[:50] for line in text.split("\n") if line.strip()]
SYMBOLS = ["<sep>", "\n", "[MASK]", "\u2460", "foo bar"]
PIECES: dict[str, dict[str, Any]] = {
    "bpe, defaults": {"model_type": "bpe", "vocab_size": 400},
    "unigram, defaults": {"vocab_size": 400},
    "bpe as Llama's": {
        "model_type": "bpe",
        "vocab_size": 700,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "unigram with bytes": {
        "vocab_size": 700,
        "byte_fallback": True,
        "control_symbols": ["<mask>", "[CLS]"],
    },
    "bpe with symbols": {
        "model_type": "bpe",
        "vocab_size": 400,
        "user_defined_symbols": SYMBOLS,
        "normalization_rule_name": "nmt_nfkc_cf",
    },
    "unigram with symbols": {"vocab_size": 400, "user_defined_symbols": SYMBOLS[:4]},
    "bare": {
        "model_type": "bpe",
        "vocab_size": 400,
        "user_defined_symbols": ["<sep>", "\n"],
        "normalization_rule_name": "nfkc",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
}
ALPHABET = [*"abc <>/s[]MASKunkpd_\u2581\n\t", "\ufb01", "\uff21", "\u00e9", "\u0301", "\u0323"]
ALPHABET += ["\u304b", "\u3099", "\u200d", "\u200b", "\U0001f642", "\u05e9", "\u6f22", "  "]
ALPHABET += ["\u1112", "\u1161", "\u11ab", "</s>", "<sep>", "[MASK]", "the ", "<0x41>", "<unk>"]


def train(folder: Path, **settings: Any) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, minloglevel=2, **settings
    )
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


def exported(corpus: Path, folder: Path) -> PreTrainedTokenizerFast:
    ours = load_tokenizer(corpus)
    folder.mkdir()
    model = DiT(vocab_size=ours.vocab_size, mask_id=ours.mask_id)
    for name, text in files(corpus, model, 64).items():
        (folder / name).write_text(text, encoding="utf-8")
    return PreTrainedTokenizerFast.from_pretrained(folder)


def equally_likely(source: Any, one: list[int], other: list[int]) -> bool:
    """The same characters in pieces of the same sum of scores, of a Unigram model."""
    sums = [sum(source.get_score(index) for index in ids) for ids in (one, other)]
    spelt = ["".join(source.id_to_piece(index) for index in ids) for ids in (one, other)]
    return spelt[0] == spelt[1] and abs(sums[0] - sums[1]) < 1e-6 * abs(sums[0])


@pytest.mark.parametrize("kind", PIECES)
def test_ids_are_sentencepieces_own(tmp_path: Path, kind: str) -> None:
    corpus = train(tmp_path / "corpus", **PIECES[kind])
    ours = load_tokenizer(corpus)
    theirs = exported(corpus, tmp_path / "out")
    source = sentencepiece.SentencePieceProcessor(model_file=str(corpus / "tokenizer.model"))
    generator = random.Random(0)
    drawn = ["".join(generator.choices(ALPHABET, k=generator.randint(1, 12))) for _ in range(400)]
    mentions = [place.replace("{}", name) for name in (*NAMES, *SYMBOLS) for place in PLACES]
    pieces = [source.id_to_piece(index) for index in range(source.vocab_size())]
    for text in [*TEXTS, *mentions, *pieces, *LINES[:400], *drawn]:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        wanted = ours.encode([text])[0]
        assert ids == wanted or equally_likely(source, ids, wanted), text
        if "\u2581" not in text:
            assert wanted == source.encode(text), text
    text = "the if statement is used"
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.mask_token_id == (ours.vocab_size if ours.mask_id is None else ours.mask_id)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)


def test_the_prefix_and_the_pieces_are_there(tmp_path: Path) -> None:
    """Whole words of a Unigram model stay whole words, and the first has its space."""
    theirs = exported(train(tmp_path / "corpus", vocab_size=1000), tmp_path / "out")
    assert theirs.tokenize("the statement is") == ["\u2581the", "\u2581statement", "\u2581is"]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_symbols_that_are_special_are_no_text(tmp_path: Path, model_type: str) -> None:
    """SentencePiece finds user-defined symbols before all else; a sidecar makes them special."""
    symbols = SYMBOLS[:4]
    settings = {"model_type": model_type, "vocab_size": 400, "user_defined_symbols": symbols}
    corpus = train(tmp_path / "corpus", **settings)
    sidecar = {"mask_token": "[MASK]", "eos_token": "<sep>"}
    (corpus / "tokenizer_config.json").write_text(json.dumps(sidecar))
    ours, theirs = load_tokenizer(corpus), exported(corpus, tmp_path / "out")
    assert (theirs.mask_token_id, theirs.eos_token_id) == (ours.mask_id, ours.eos_id)
    for name in (*NAMES, *symbols, "[MASK", "MASK]<sep>[MASK]"):
        for text in [place.replace("{}", name) for place in PLACES]:
            ids = theirs(text, add_special_tokens=False)["input_ids"]
            assert ids == ours.encode([text])[0], text
            assert {ours.mask_id, ours.eos_id}.isdisjoint(ids), text
    assert ours.mask_id in theirs("the [MASK]", split_special_tokens=False)["input_ids"]


def test_masks_are_read_where_that_is_asked_for(tmp_path: Path) -> None:
    theirs = exported(train(tmp_path / "corpus", vocab_size=400), tmp_path / "out")
    ids = theirs("the [MASK] of", split_special_tokens=False)["input_ids"]
    assert ids.count(theirs.mask_token_id) == 1
    assert theirs.mask_token_id not in theirs("the [MASK] of")["input_ids"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "word", "vocab_size": 300}, "model_type word"),
        ({"vocab_size": 400, "treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    ],
    ids=str,
)
def test_what_cannot_be_expressed_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        exported(train(tmp_path / "corpus", **settings), tmp_path / "out")


def test_a_normaliser_of_the_users_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.tsv").write_text("61 62\t63\n")  # ab -> c
    rules = {"normalization_rule_tsv": str(tmp_path / "rules.tsv")}
    with pytest.raises(UserError, match="its normaliser is user_defined; known are nmt_nfkc"):
        exported(train(tmp_path / "corpus", vocab_size=400, **rules), tmp_path / "out")


def wrong(made: Tokenizer) -> Tokenizer:
    """As exports were made once: without the prefix."""
    made.normalizer = normalizers.Replace(" ", "\u2581")
    return made


def test_nothing_is_written_where_ids_differ(tmp_path: Path, monkeypatch) -> None:
    corpus = train(tmp_path / "corpus", model_type="bpe", vocab_size=400)
    denoiser = random_weights(build(DiT(vocab_size=400, width=32, num_layers=1, num_heads=4)))
    save_weights(tmp_path / "denoiser", denoiser, run_of(denoiser.config, corpus), 2**20)
    genie, run = small_genie(corpus)
    save_weights(tmp_path / "genie", genie, run, 2**20)
    to_hf(tmp_path / "genie", tmp_path / "right")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "right", trust_remote_code=True)
    assert theirs("a statement")["input_ids"] == load_tokenizer(corpus).encode(["a statement"])[0]
    honest = tokenizer_files.from_sentencepiece
    monkeypatch.setattr(tokenizer_files, "from_sentencepiece", lambda *a: wrong(honest(*a)))
    for name in ("denoiser", "genie"):
        for layout in ("palimpsest", "mdlm") if name == "denoiser" else ("palimpsest",):
            with pytest.raises(RunError, match="nothing was written"):
                to_hf(tmp_path / name, tmp_path / "out", format_name=layout)
            assert not (tmp_path / "out").exists()


def test_special_tokens_of_an_adopted_file_are_no_text(tmp_path: Path) -> None:
    made = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")]))
    made.add_special_tokens(["<s>", "</s>"])
    made.add_tokens([AddedToken("<b>")])
    (tmp_path / "in").mkdir()
    made.save(str(tmp_path / "in" / "tokenizer.json"))
    theirs = exported(tmp_path / "in", tmp_path / "out")
    assert theirs("ab</s>b[MASK]<b>")["input_ids"] == [4, 3, 5]
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["split_special_tokens"] is True
