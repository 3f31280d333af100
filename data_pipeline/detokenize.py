"""Undo the tokenisation of published evaluation sets, whose texts have spaces around punctuation.

Zero-shot perplexities are of text that is written as a model has seen it. These are the rules that
the evaluations of SEDD (Lou et al. 2024) and MDLM (Sahoo et al. 2024, section 5.1) apply to each
document, in their order, oddities included (``N`` becomes 1), so that numbers can be compared.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

Rule = tuple[str, str]
"""A regular expression, and what takes the place of each match."""

_NUMBERS: tuple[Rule, ...] = ((r" @-@ ", "-"), (r" @,@ ", ","), (r" @\.@ ", "."))
"""WikiText writes ``1 @,@ 000`` and ``blue @-@ eyed``."""


def _closed_up(opening: str, closing: str) -> Rule:
    """No space inside of a pair of marks."""
    o, c = re.escape(opening), re.escape(closing)
    return rf"{o}\s*([^{c}]*?)\s*{c}", rf"{opening}\1{closing}"


def _spaced_pair(opening: str, closing: str) -> Rule:
    """A pair of marks with one space each inside loses it; marks of the pair do not nest."""
    o, c = re.escape(opening), re.escape(closing)
    return rf"{o} ([^{o}{c}]+) {c}", rf"{opening}\1{closing}"


_WIKITEXT: tuple[Rule, ...] = (
    (r"s '", "s'"),
    *_NUMBERS,
    *((rf" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    *(_closed_up(*pair) for pair in ("()", "[]", "{}", '""', "''")),
    # Headings: `= = Title = =` of any depth up to four.
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (r" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)

_PTB: tuple[Rule, ...] = (
    (r" 's", "'s"),
    (r"s ' ", "s' "),
    (r" n't", "n't"),
    (r" \n ", "\n"),
    (r"\\/", "/"),
    # Twice, since neighbours share a space.
    (r" N ", " 1 "),
    (r" N ", " 1 "),
    (r"\$ 1", "$1"),
    (r"# 1", "#1"),
    (r"<unk>", "?"),
)

_LM1B: tuple[Rule, ...] = (
    (r"http : / / ", "http://"),
    (r"https : / / ", "https://"),
    (r" '(\w+)", r"'\1"),
    (r" (\w+) \. ", r" \1. "),
    (r" (\w+) \.$", r" \1."),
    (r" \? ", "? "),
    (r" \?$", "?"),
    (r" ! ", "! "),
    (r" !$", "!"),
    *((rf" {mark} ", f"{mark} ") for mark in ",:;"),
    (r" / ", "/"),
    *(_spaced_pair(*pair) for pair in ('""', "''", "()", "[]")),
    (r"([$£]) ", r"\1"),
)


def _replaced(text: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def _lambada(text: str) -> str:
    return "\n" + re.sub("[“”]", '"', text).strip()


wikitext = partial(_replaced, rules=_WIKITEXT)
scientific = partial(_replaced, rules=_WIKITEXT + _LM1B)

DETOKENIZERS: Mapping[str, Callable[[str], str]] = {
    "wikitext": wikitext,
    "ptb": partial(_replaced, rules=_PTB),
    "lm1b": partial(_replaced, rules=_LM1B),
    "lambada": _lambada,
    "ag_news": str,
    "pubmed": scientific,
    "arxiv": scientific,
}
"""By the name of the set; AG News is plain text already."""
