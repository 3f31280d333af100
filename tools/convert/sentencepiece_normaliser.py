"""What SentencePiece does to a text before it cuts it, in the terms of Hugging Face's tokenizers.

A model file brings its rules compiled, as the longest sequence of characters that is replaced
at each place. ``Precompiled`` reads them, but by grapheme: of several characters that hang
together it replaces the shortest sequence that it knows, and forgets the rest (Vietnamese or
Hangul in decomposed form, kana with a voicing mark). So sequences are composed by NFKC, of
which the rules are a closure, and ``Precompiled`` then gets each character alone, set apart
by a sign that is no text and is taken out again.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, normalizers

SPACE = "\u2581"
APART = "\ufff0"
"""Never a character; each side of it is a grapheme of its own."""
PLACES = range(0xF0000, 0xFFFFE)
"""Private characters that stand for what no rule may touch."""
COMPOSED = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
"""Names of rules whose sequences are NFKC's."""
UNTOUCHED_BY_NFKC = "\uff5e"
"""The one character that these rules keep and NFKC does not."""


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a space is written in the pieces.

    Args:
        space: SentencePiece's sign, or a space where the sign in a text has pieces of its own.
        signs_apart: whether a text is cut at such signs (where bytes spell them).
    """

    space: str
    signs_apart: bool


def problems(proto: Any) -> list[str]:
    """What of a model's normalisation cannot be expressed."""
    spec = proto.normalizer_spec
    found = []
    if spec.precompiled_charsmap and spec.name not in COMPOSED:
        found.append(f"its normaliser is {spec.name}; known are {', '.join(COMPOSED)}, identity")
    if not spec.escape_whitespaces:
        found.append("escape_whitespaces is off")
    if proto.trainer_spec.treat_whitespace_as_suffix:
        found.append("treat_whitespace_as_suffix is on")
    if proto.denormalizer_spec.precompiled_charsmap:
        found.append("it has a denormaliser")
    return found


def normaliser(proto: Any, spelling: Spelling, kept: list[str]) -> normalizers.Sequence:
    """All steps, in SentencePiece's order.

    Args:
        kept: user-defined pieces, which rules leave alone.
    """
    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps += _rules(proto, kept, [SPACE] if spelling.signs_apart else [])
    if spec.remove_extra_whitespaces:
        steps += [_replace(r"\A +", ""), _replace(" {2,}", " "), _replace(r" +\z", "")]
    if spelling.signs_apart:
        steps += _around_signs(spec)
    else:
        steps.append(normalizers.Replace(" ", SPACE))
        if spec.remove_extra_whitespaces:
            steps.append(_replace(f"{SPACE}+\\z", ""))
    if spec.add_dummy_prefix and not spelling.signs_apart:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence(steps)


def _replace(pattern: str, content: str) -> normalizers.Replace:
    return normalizers.Replace(Regex(pattern), content)


def _rules(proto: Any, kept: list[str], signs: list[str]) -> list[Any]:
    plain = _plain(proto)
    touched = [text for text in kept if plain.normalize(text) != text] + signs
    held = [*sorted(touched, key=len, reverse=True), UNTOUCHED_BY_NFKC]
    place = {text: chr(PLACES[number]) for number, text in enumerate(held)}
    back = {place[text]: text for text in touched}
    back[place[UNTOUCHED_BY_NFKC]] = plain.normalize(UNTOUCHED_BY_NFKC)
    return [
        *(normalizers.Replace(text, sign) for text, sign in place.items()),
        _replace(_not_composed(), APART),
        normalizers.NFKC(),
        _replace(r"(?<=[^\x00-\x7F])(?=[\s\S])|(?<=[\x00-\x7F])(?=[^\x00-\x7F]|\n)", APART),
        normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
        normalizers.Replace(APART, ""),
        *(normalizers.Replace(sign, text) for sign, text in back.items()),
    ]


def _plain(proto: Any) -> SentencePieceProcessor:
    """The rules alone, without what is done to spaces and user-defined pieces."""
    bare = type(proto)()
    bare.CopyFrom(proto)
    spec = bare.normalizer_spec
    spec.add_dummy_prefix = spec.remove_extra_whitespaces = spec.escape_whitespaces = False
    for piece in bare.pieces:
        if piece.type == type(piece).USER_DEFINED:
            piece.type = type(piece).NORMAL
    return SentencePieceProcessor(model_proto=bare.SerializeToString())


def _around_signs(spec: Any) -> list[Any]:
    """A text is cut at each sign, and its parts are texts of their own."""
    steps: list[Any] = []
    if spec.remove_extra_whitespaces:
        steps += [_replace(f" +(?={SPACE})", ""), _replace(f"(?<={SPACE}) +", "")]
    if spec.add_dummy_prefix:
        steps.append(_replace(f"(?:\\A|(?<={SPACE}))(?=[^{SPACE}])", " "))
    return steps


@cache
def _not_composed() -> str:
    """A pattern of the places over which NFKC composes and these rules do not.

    They know neither the canonical order of marks, nor marks on the last of several letters
    that one character stands for (a ligature).
    """
    assigned = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) != "Cs"]
    marks: dict[int, list[str]] = {}
    for sign in assigned:
        if order := unicodedata.combining(sign):
            marks.setdefault(order, []).append(sign)
    several = [
        sign
        for sign in assigned
        if sum(not unicodedata.combining(c) for c in unicodedata.normalize("NFKC", sign)) > 1
    ]
    places = [
        f"(?<={_class(several)})(?={_class([sign for those in marks.values() for sign in those])})"
    ]
    for order, signs in sorted(marks.items()):
        later = [sign for other, those in marks.items() if other > order for sign in those]
        if later:
            places.append(f"(?<={_class(later)})(?={_class(signs)})")
    return "|".join(places)


def _class(signs: list[str]) -> str:
    """A pattern of one of these characters, as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, signs)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    parts = (f"\\x{{{a:x}}}" + (f"-\\x{{{b:x}}}" if b > a else "") for a, b in ranges)
    return f"[{''.join(parts)}]"


def boundaries(pairs: set[tuple[str, str]]) -> str:
    """A pattern of the places between two characters."""
    return "|".join(f"(?<={re.escape(a)})(?={re.escape(b)})" for a, b in sorted(pairs))
