"""SentencePiece's normalisation of a text, as normalizers of Hugging Face's tokenizers.

A model file brings its rules compiled, as the longest sequence of characters that is replaced
at each place. ``Precompiled`` reads them, but by grapheme: of several characters that hang
together it replaces the shortest sequence that it knows, and forgets the rest (Vietnamese or
Hangul in decomposed form, kana with a voicing mark). So sequences are composed by NFKC, of
which the rules are a closure, and ``Precompiled`` then gets each character alone, set apart
by a sign that is no text and is taken out again.
"""

from dataclasses import dataclass
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, normalizers

from tools.convert.composition import not_composed
from tools.convert.unread import PLACES

SPACE = "\u2581"
APART = "\ufff0"
"""Never a character; each side of it is a grapheme of its own."""
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
    """Parts of a model's normalisation that cannot be expressed."""
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
    held = [*sorted(kept, key=len, reverse=True), *signs, UNTOUCHED_BY_NFKC]
    place = {text: chr(PLACES[number]) for number, text in enumerate(held)}
    back = {sign: text for text, sign in place.items()}
    if UNTOUCHED_BY_NFKC not in kept:
        back[place[UNTOUCHED_BY_NFKC]] = plain.normalize(UNTOUCHED_BY_NFKC)
    return [
        *(normalizers.Replace(text, sign) for text, sign in place.items()),
        _replace(not_composed(plain.normalize), APART),
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
