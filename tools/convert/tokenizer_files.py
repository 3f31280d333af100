"""The tokenizer beside exported weights, in the form that transformers reads.

A ``tokenizer.json`` is taken over (:mod:`tools.convert.json_files`), a SentencePiece model
becomes one (:mod:`tools.convert.sentencepiece_files`), and the ids of both are compared before
anything is written. [MASK], where it is our own, becomes the token after the last. As in
training, no special token is read out of a text; ``tokenizer(text,
split_special_tokens=False)`` does.
"""

import json
import sys
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from configs.errors import UserError
from data_pipeline.huggingface import HuggingFaceTokenizer
from data_pipeline.tokenizer import Tokenizer, load_tokenizer, tokenizer_file
from model.networks.config import ModelConfig
from tools.convert.json_files import from_json
from tools.convert.sentencepiece_files import from_sentencepiece
from tools.convert.tokenizer_check import Scores, require_same_ids

MASK_TOKENS = ("[MASK]", "<|mask|>", "<|palimpsest_mask|>")
"""Names for a [MASK] of our own: the first that the vocabulary does not hold."""


def check(path: Path, model: ModelConfig) -> Tokenizer:
    """The tokenizer at ``path``.

    Raises:
        UserError: there is none, or its ids are not the model's.
    """
    found = load_tokenizer(path)
    if (found.vocab_size, found.mask_id) != (model.vocab_size, model.mask_id):
        raise UserError(
            f"vocabulary mismatch: the model has {model.vocab_size} ids and mask_id "
            f"{model.mask_id}, the tokenizer of {path} {found.vocab_size} and {found.mask_id}"
            + _advice(found, model)
        )
    return found


def _advice(found: Tokenizer, model: ModelConfig) -> str:
    """How to declare [MASK] for a tokenizer with the right number of ids."""
    if found.vocab_size != model.vocab_size or model.mask_id is None:
        return ""
    piece = json.dumps({"mask_token": found.id_to_piece(model.mask_id)}, ensure_ascii=False)
    return f"; if they belong together, say so in tokenizer_config.json beside it: {piece}"


def files(path: Path, model: ModelConfig, length: int) -> dict[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json``, as texts by name.

    Args:
        path: of a tokenizer, or a directory with one. length: positions of a sequence.

    Raises:
        UserError: its ids are not the model's, or it cannot be expressed.
        RunError: the ids of some text would be others than in training.
    """
    ours = check(path, model)
    file = tokenizer_file(path)
    if isinstance(ours, HuggingFaceTokenizer):
        made = from_json(file, ours.unread)
    else:
        made = from_sentencepiece(file, _special(ours))
    made.no_truncation()
    made.no_padding()
    if model.reads_source:
        # Sources and targets are bare in training, whatever the tokenizer would put around them.
        made.post_processor = None
    special = {
        "bos_token": ours.id_to_piece(ours.bos_id),
        "eos_token": ours.id_to_piece(ours.eos_id),
        "pad_token": ours.id_to_piece(ours.pad_id),
        "mask_token": _mask_token(made, model),
    }
    if ours.unk_id is not None:
        special["unk_token"] = ours.id_to_piece(ours.unk_id)
    added = {token.content: token for token in made.get_added_tokens_decoder().values()}
    made.add_special_tokens([_as_special(name, added.get(name)) for name in special.values()])
    names = [*special.values(), *added]
    written = made.to_str(pretty=True)
    exported = tokenizers.Tokenizer.from_str(written)
    # A tokenizer.json is the same computation on both sides: no difference is rounding.
    scores = None if file.suffix == ".json" else _scores(json.loads(written))
    if ties := require_same_ids(ours, exported, path=path, names=names, scores=scores):
        print(
            f"note: {ties} of the texts compared have two cuts that are equally likely in "
            "SentencePiece's float32; the exported tokenizer takes the other one",
            file=sys.stderr,
        )
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "split_special_tokens": True,
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {
        "tokenizer.json": written,
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
    }


def _special(ours: Tokenizer) -> set[int]:
    """Ids that no text gives."""
    return {i for i in (ours.bos_id, ours.eos_id, ours.pad_id, ours.mask_id) if i is not None}


def _as_special(name: str, there: AddedToken | None) -> AddedToken:
    """A special token that is found before all else, with the spaces that it took in before."""
    lstrip, rstrip = (there.lstrip, there.rstrip) if there is not None else (False, False)
    return AddedToken(name, special=True, normalized=False, lstrip=lstrip, rstrip=rstrip)


def _scores(written: dict[str, Any]) -> Scores | None:
    """Scores of a Unigram model; its unknown token and bytes are not found by their scores."""
    model = written["model"]
    if model["type"] != "Unigram":
        return None
    of = [float(score) for _, score in model["vocab"]]
    plain = {
        index
        for index, (piece, _) in enumerate(model["vocab"])
        if index != model["unk_id"] and not (piece.startswith("<0x") and len(piece) == 6)
    }
    return Scores(of=of, plain=frozenset(plain))


def _mask_token(made: tokenizers.Tokenizer, model: ModelConfig) -> str:
    """The name of the mask token, added if it is our own."""
    if model.mask_id is not None:
        return str(made.id_to_token(model.mask_id))
    name = next(name for name in MASK_TOKENS if made.token_to_id(name) is None)
    # Ids without a token lie before ours where the vocabulary has holes.
    for hole in range(made.get_vocab_size(with_added_tokens=True), model.mask):
        made.add_special_tokens([AddedToken(f"<|unused_{hole}|>", special=True)])
    made.add_special_tokens([AddedToken(name, special=True)])
    if made.token_to_id(name) != model.mask:
        raise UserError(f"the tokenizer gives {name} id {made.token_to_id(name)}, not {model.mask}")
    return name
