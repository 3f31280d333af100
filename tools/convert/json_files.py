"""A ``tokenizer.json`` that, as in training, reads no special token out of a text.

In training such pieces lose their names (``data_pipeline/unspellable.py``). Here they keep
them, since users ask for ``[MASK]`` by its name: where the vocabulary holds a name and a text
gives it, merges that make it are left out, and texts are cut within it or changed so that
they come out as in training (:mod:`tools.convert.unread`). What cannot be done is refused.
"""

import json
import re
import sys
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from data_pipeline.unspellable import merges_without
from tools.convert.unread import Hidden, Unread, problem_of, refuse

CONTEXTS = ("{}", "x{}y", "a {} b", "{}{}", ".{}.")


def from_json(file: Path, unread: Collection[str]) -> Tokenizer:
    """The tokenizer of a file.

    Args:
        unread: names of pieces that no text gives in training.

    Raises:
        UserError: it cannot be the same; every reason is given.
    """
    described = json.loads(file.read_bytes())
    model = described["model"]
    if "merges" in model:
        model["merges"] = merges_without(model, unread)
    read = _read(described, unread)
    hidden = _hidden(model, read) if read else Hidden()
    refuse(file, hidden.problems)
    made = Tokenizer.from_str(json.dumps(described))
    if hidden.replaced:
        steps = [normalizers.Replace(Regex(_alone(a)), b) for a, b in hidden.replaced]
        made.normalizer = normalizers.Sequence([*_there(made.normalizer), *steps])
    if hidden.pairs:
        cut = pre_tokenizers.Split(Regex(hidden.pattern()), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([*_there(made.pre_tokenizer), cut])
    return made


def _there(step: Any) -> list[Any]:
    return [] if step is None else [step]


def _read(described: Mapping[str, Any], unread: Collection[str]) -> dict[str, int]:
    """Those of the names that some text gives, and their ids."""
    made = Tokenizer.from_str(json.dumps(described))
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    found = {}
    for name in unread:
        texts = [context.replace("{}", name) for context in CONTEXTS]
        index = made.token_to_id(name)
        encoded = made.encode_batch_fast(texts, add_special_tokens=False)
        if index is not None and any(index in one.ids for one in encoded):
            found[name] = index
    return found


def _hidden(model: dict[str, Any], names: Mapping[str, int]) -> Hidden:
    """The changes that keep these names from being read."""
    vocabulary = model["vocab"]
    unknown = model.get("unk_token")
    if isinstance(vocabulary, list):
        unknown = vocabulary[model["unk_id"]][0] if model.get("unk_id") is not None else None
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    else:
        ids = vocabulary
    matched = {piece: index for piece, index in ids.items() if piece not in names}
    ways = Unread(matched, has_bytes=bool(model.get("byte_fallback")))
    if isinstance(vocabulary, list):
        scores = [float(score) for _, score in vocabulary]
        found = ways.unigram(names, scores)
        model["vocab"] = [[p, score] for (p, _), score in zip(vocabulary, scores, strict=True)]
        return found
    if "merges" in model:
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return Hidden(problems=[problem_of(name) for name in names])
        return ways.cut(names)
    # Whole words (WordLevel), or the beginnings of words that are unknown as a whole (WordPiece).
    found = Hidden()
    for name in (name for name in names if name != unknown):
        if _spelt(name, model, ways):
            found.problems.append(problem_of(name))
        else:
            found.replaced.append((name, _another(name, ways)))
    return found


def _spelt(name: str, model: Mapping[str, Any], ways: Unread) -> bool:
    """Whether a word with ``name`` in it may be of other pieces (of WordPiece)."""
    return "max_input_chars_per_word" in model and all(map(ways.occurs, name))


def _another(name: str, ways: Unread) -> str:
    """A word of the same kinds of characters that is no piece, and has no piece's beginning."""
    place = next((i for i, sign in enumerate(name) if sign.isalnum()), 0)
    kind = unicodedata.category(name[place])
    other = next(
        sign
        for sign in map(chr, range(sys.maxunicode, 0, -1))
        if unicodedata.category(sign) == kind and not ways.occurs(sign)
    )
    return name[:place] + other + name[place + 1 :]


def _alone(name: str) -> str:
    """A pattern of the name where no word goes on at its ends."""
    before = r"(?<![^\W_])" if name[0].isalnum() else ""
    behind = r"(?![^\W_])" if name[-1].isalnum() else ""
    return before + re.escape(name) + behind
