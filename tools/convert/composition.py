"""Places where Unicode's NFKC composes characters and SentencePiece's rules of that name do not.

The rules are a list of sequences, each a character and the marks that make another character
of it. They know no canonical order of marks, compose over no mark that stays, and put no mark
on the last of several letters that one character stands for (a ligature).
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping

MARK = r"\p{M}"
OPEN_SYLLABLES = [chr(code) for code in range(0xAC00, 0xD7A4, 28)]
FINALS = [chr(code) for code in range(0x11A8, 0x11C3)]
"""Hangul: the rules join three letters, and no letter to a syllable."""


def not_composed(normalize: Callable[[str], str]) -> str:
    """A pattern of the places between two characters that NFKC must not look across.

    Args:
        normalize: what the rules make of a text.
    """
    signs = [chr(code) for code in range(0x30000) if unicodedata.category(chr(code)) != "Cs"]
    one = {sign: unicodedata.normalize("NFKC", sign) for sign in signs}
    order = {sign: number for sign in signs if (number := _order(one[sign][0]))}
    ends = {s: n for s in signs if (n := _order(unicodedata.normalize("NFKD", s)[-1]))}
    several = [sign for sign in signs if sum(not _order(c) for c in one[sign]) > 1]
    double = [mark for mark in order if len(one[mark]) > 1]
    places = [f"(?<={_class(several)})(?={MARK})", rf"(?<=[\s\S])(?={_class(double)})"]
    places.append(f"(?<={_class(OPEN_SYLLABLES)})(?={_class(FINALS)})")
    composing, apart = _composing(one, normalize)
    places += [f"(?<={_class(bases)})(?={mark})" for mark, bases in apart.items() if bases]
    for number in sorted(set(order.values())):
        here = [mark for mark in order if order[mark] == number]
        if after := [sign for sign in ends if ends[sign] > number]:
            places.append(f"(?<={_class(after)})(?={_class(here)})")
        if later := [mark for mark in order if order[mark] > number]:
            behind = [_class(mark for mark in here if mark not in composing)]
            behind += [f"[^{MARK}{_ranges(composing[m])}]{m}" for m in here if m in composing]
            places.append(f"(?<={'|'.join(behind)})(?={_class(later)})")
    return "|".join(places)


def _order(sign: str) -> int:
    """A mark's canonical combining class; 0 for what is none."""
    return unicodedata.combining(sign)


def _composing(
    one: Mapping[str, str], normalize: Callable[[str], str]
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """For each mark what it composes with, by the rules, and what by NFKC alone."""
    bases: dict[str, set[str]] = {}
    for sign in one:
        parts = unicodedata.decomposition(sign).split()
        canonical = len(parts) == 2 and not parts[0].startswith("<")
        if canonical and unicodedata.normalize("NFC", sign) == sign:
            base, mark = (chr(int(part, 16)) for part in parts)
            if _order(mark):
                bases.setdefault(mark, set()).add(base)
    by_last: dict[str, list[str]] = {}
    for sign, normal in one.items():
        by_last.setdefault(normal[-1], []).append(sign)
    both: dict[str, set[str]] = {}
    alone: dict[str, set[str]] = {}
    for mark in (mark for mark, normal in one.items() if normal in bases):
        for sign in (sign for base in bases[one[mark]] for sign in by_last.get(base, ())):
            composed = unicodedata.normalize("NFKC", sign + mark)
            same = normalize(sign + mark) == normalize(composed)
            (both if same else alone).setdefault(mark, set()).add(sign)
    return both, alone


def _class(signs: Iterable[str]) -> str:
    """A pattern of one of these characters; of none at all where there are none."""
    ranges = _ranges(signs)
    return f"[{ranges}]" if ranges else r"[^\s\S]"


def _ranges(signs: Iterable[str]) -> str:
    found: list[list[int]] = []
    for code in sorted(map(ord, signs)):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(chr(a) + (f"-{chr(b)}" if b > a else "") for a, b in found)
