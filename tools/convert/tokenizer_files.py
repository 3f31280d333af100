"""The tokenizer beside exported weights, in the form that transformers reads.

A ``tokenizer.json`` is taken as it is. A SentencePiece BPE model becomes one: its pieces are
the vocabulary, and each pair of pieces that makes a third is a merge, in the order of the
third's score. Text comes out as the same ids, but for U+2581 in a text, which stands for a
space there. [MASK], where it is our own, becomes the token after the last.
"""

import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from configs.errors import UserError
from data_pipeline.tokenizer import Tokenizer, load_tokenizer, tokenizer_file
from model.config import ModelConfig

SPACE = "\u2581"
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
        )
    return found


def files(path: Path, model: ModelConfig, length: int) -> dict[str, str]:
    """``tokenizer.json`` and ``tokenizer_config.json``, as texts by name.

    Args:
        path: of a tokenizer, or a directory with one. length: positions of a sequence.

    Raises:
        UserError: its ids are not the model's.
    """
    ours = check(path, model)
    file = tokenizer_file(path)
    if file.suffix == ".json":
        made = tokenizers.Tokenizer.from_file(str(file))
    else:
        made = _from_sentencepiece(file)
    made.no_truncation()
    made.no_padding()
    if model.seq2seq is not None:
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
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {
        "tokenizer.json": made.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
    }


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


def _from_sentencepiece(file: Path) -> tokenizers.Tokenizer:
    """The same BPE model, without SentencePiece."""
    source = sentencepiece.SentencePieceProcessor(model_proto=file.read_bytes())
    size = source.vocab_size()
    pieces = [source.id_to_piece(index) for index in range(size)]
    ids = {piece: index for index, piece in enumerate(pieces)}
    whole = [
        index
        for index in range(size)
        if not (source.is_control(index) or source.is_unknown(index) or source.is_byte(index))
    ]
    merges = []
    for index in whole:
        piece = pieces[index]
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                merges.append((-source.get_score(index), ids[left], ids[right], left, right))
    merges.sort(key=lambda merge: merge[:3])
    has_bytes = any(source.is_byte(index) for index in range(size))
    unknown = pieces[source.unk_id()] if source.unk_id() >= 0 else None
    made = tokenizers.Tokenizer(
        models.BPE(
            vocab=ids,
            merges=[merge[3:] for merge in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=has_bytes,
        )
    )
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    controls = [pieces[i] for i in range(size) if source.is_control(i) or source.is_unknown(i)]
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in controls])
    return made
