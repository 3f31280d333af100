"""A tokenizer.json of any kind gives the ids of training once it is exported, mentions and all."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, trainers
from tokenizers import pre_tokenizers as cuts
from transformers import PreTrainedTokenizerFast

from configs.errors import UserError
from data_pipeline.adopt import adopt_tokenizer
from data_pipeline.tokenizer import load_tokenizer
from model.architectures.dit import DiT
from tools.convert.tokenizer_check import NAMES, PLACES, TEXTS
from tools.convert.tokenizer_files import files

LINES = [line for text in list(topics.topics.values())[:15] for line in text.split("\n") if line]
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "[MASK]"}
BERT = {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
WORDS = {"bos_token": "BOS", "eos_token": "if", "pad_token": "PAD", "mask_token": "MASK"}


def trained(model: Any, trainer: Any, cut: Any, roles: dict[str, str], unknown: str) -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = cut
    special = [unknown, *roles.values()]
    made.train_from_iterator(LINES, trainer(vocab_size=300, special_tokens=special))
    return made


def unigram(cut: Any = None, roles: dict[str, str] = ROLES) -> Tokenizer:
    def trainer(**settings: Any) -> Any:
        return trainers.UnigramTrainer(unk_token="<unk>", **settings)

    return trained(models.Unigram(), trainer, cut or cuts.Metaspace(), roles, "<unk>")


def words(cut: Any, roles: dict[str, str] = ROLES) -> Tokenizer:
    model = models.WordLevel(unk_token="<unk>")
    return trained(model, trainers.WordLevelTrainer, cut, roles, "<unk>")


def word_pieces(cut: Any) -> Tokenizer:
    return trained(
        models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, cut, BERT, "[UNK]"
    )


def pairs(cut: Any, *, whole: bool = False) -> Tokenizer:
    made = trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer, cut, ROLES, "<unk>")
    described = json.loads(made.to_str())
    described["model"]["ignore_merges"] = whole
    return Tokenizer.from_str(json.dumps(described))


def without_added(made: Tokenizer) -> Tokenizer:
    described = json.loads(made.to_str())
    described["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(described))


def lowered(made: Tokenizer) -> Tokenizer:
    made.normalizer = normalizers.Lowercase()
    return made


KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "unigram": (unigram, ROLES),
    "unigram, one text": (lambda: unigram(cuts.Metaspace(split=False)), ROLES),
    "unigram, nothing added": (lambda: without_added(unigram()), ROLES),
    "words": (lambda: words(cuts.WhitespaceSplit()), ROLES),
    "words, lower case": (
        lambda: lowered(words(cuts.WhitespaceSplit(), {**ROLES, "mask_token": "mask"})),
        {**ROLES, "mask_token": "mask"},
    ),
    "words that are words": (lambda: words(cuts.Whitespace(), WORDS), WORDS),
    "word pieces": (lambda: word_pieces(cuts.BertPreTokenizer()), BERT),
    "pairs": (lambda: pairs(cuts.WhitespaceSplit()), ROLES),
    "pairs, words looked up": (lambda: pairs(cuts.WhitespaceSplit(), whole=True), ROLES),
    "pairs of bytes, looked up": (
        lambda: pairs(cuts.ByteLevel(add_prefix_space=False, use_regex=False), whole=True),
        ROLES,
    ),
}


def exported(made: Tokenizer, roles: dict[str, str], folder: Path) -> tuple[Any, Any]:
    """The corpus's tokenizer, and the one that an export has."""
    source, corpus, out = folder / "source", folder / "corpus", folder / "out"
    source.mkdir()
    made.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(json.dumps(roles))
    ours = adopt_tokenizer(source, corpus)
    out.mkdir()
    model = DiT(vocab_size=ours.vocab_size, mask_id=ours.mask_id)
    for name, text in files(corpus, model, 64).items():
        (out / name).write_text(text, encoding="utf-8")
    return load_tokenizer(corpus), PreTrainedTokenizerFast.from_pretrained(out)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_training(tmp_path: Path, kind: str) -> None:
    make, roles = KINDS[kind]
    ours, theirs = exported(make(), roles, tmp_path)
    generator = random.Random(0)
    parts = [*roles.values(), "<unk>", "[UNK]", *"abMSK[]<>/ _.\n", "if", "the ", "\u6f22"]
    drawn = ["".join(generator.choices(parts, k=generator.randint(1, 8))) for _ in range(300)]
    named = (*NAMES, *roles.values())
    mentions = [place.replace("{}", name) for name in named for place in PLACES]
    special = {ours.bos_id, ours.eos_id, ours.pad_id, ours.mask_id}
    for text in [*TEXTS, *mentions, *LINES[:100], *drawn]:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == ours.encode([text])[0], text
        assert special.isdisjoint(ids), text
    # Their names are still theirs, and read where that is asked for.
    assert {role: getattr(theirs, role) for role in roles} == roles
    assert theirs.mask_token_id == ours.mask_id
    mask = roles["mask_token"]
    read = theirs(f"the {mask} of", split_special_tokens=False)["input_ids"]
    assert read.count(ours.mask_id) == 1


def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path) -> None:
    """Pieces of words, where a word may begin with the name and the name is of other pieces."""
    with pytest.raises(UserError, match=r"--no-tokenizer(.|\n)*mentions '\[PAD\]' would hold"):
        exported(word_pieces(cuts.WhitespaceSplit()), BERT, tmp_path)


def test_a_mask_keeps_the_space_that_it_takes_in(tmp_path: Path) -> None:
    made = unigram()
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    _, theirs = exported(made, ROLES, tmp_path)
    one, other = (
        theirs(text, split_special_tokens=False)["input_ids"] for text in ("a [MASK]", "a[MASK]")
    )
    assert one == other
