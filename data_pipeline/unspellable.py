"""Change tokenizers so that no text encodes to a special token.

`tokenizer.json` files hold `</s>` or `[MASK]` among the pieces of their vocabulary, and the
model finds them there like any other: Unigram by its score, WordLevel and WordPiece by their
spelling, BPE where a merge makes it or `ignore_merges` looks a word up. SentencePiece models may
declare them user-defined symbols, which are matched before all else. A document that mentions
one would end there, or be masked there. Here such a piece keeps its id and loses its spelling:
what mentions it comes out as other pieces, or as unknown.
"""

import json
import secrets
from collections.abc import Collection, Iterable
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2


def unspellable_json(content: bytes, names: Iterable[str]) -> tokenizers.Tokenizer:
    """The tokenizer of a `tokenizer.json` whose pieces `names` no text can give.

    They are called by names that are drawn anew each time, so that no text can hold them: for
    encoding only. Whatever a normaliser writes, the model does not find these pieces in it.
    """
    described = json.loads(content)
    secret = secrets.token_hex(16)
    renamed = {name: f"\ufdd0{secret}-{number}" for number, name in enumerate(names)}
    _rename_pieces(described["model"], renamed)
    for token in described.get("added_tokens") or []:
        if token["content"] in renamed:
            # Not left out: tokens beyond the model's own get their ids by their order.
            token |= {"content": renamed[token["content"]], "special": True, "normalized": False}
    made = tokenizers.Tokenizer.from_str(json.dumps(described))
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    return made


def _rename_pieces(model: dict[str, Any], renamed: dict[str, str]) -> None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces and their scores, by id
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in vocabulary]
        return
    model["vocab"] = {renamed.get(piece, piece): index for piece, index in vocabulary.items()}
    if (unknown := model.get("unk_token")) is not None:
        model["unk_token"] = renamed.get(unknown, unknown)
    if "merges" in model:
        model["merges"] = merges_without(model, renamed)


def merges_without(model: dict[str, Any], names: Collection[str]) -> list[Any]:
    """The merges of a BPE model in which none of these pieces takes part."""
    prefix = model.get("continuing_subword_prefix") or ""
    return [m for m in model["merges"] if frozenset(names).isdisjoint(_parts(m, prefix))]


def _parts(merge: str | list[str], prefix: str) -> tuple[str, str, str]:
    """Both pieces of a merge, and the piece that they make."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right, left + right.removeprefix(prefix)


def unspellable_sentencepiece(content: bytes, ids: Iterable[int]) -> bytes:
    """The model file with the pieces `ids` as control symbols, which no text can give.

    Raises:
        google.protobuf.message.DecodeError: it is no model file.
    """
    messages: Any = sentencepiece_model_pb2  # made at run time
    model = messages.ModelProto.FromString(content)
    for index in ids:
        model.pieces[index].type = messages.ModelProto.SentencePiece.CONTROL
    return bytes(model.SerializeToString())
