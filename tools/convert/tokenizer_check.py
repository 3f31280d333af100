"""Comparison of an exported tokenizer with that of training, on texts of every kind.

Texts: what is easily lost (spaces, newlines, marks, forms that normalisers change), the names
of special tokens in all places, every piece of the vocabulary, and the corpus's own documents
and words where it is at hand.

SentencePiece adds up a Unigram model's scores in float32, over a whole text, and where two
ways to cut a word are equally likely to that precision (two pieces in another order, most of
the time), rounding decides there. Such differences are counted and allowed; no other is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HuggingFace

from configs.errors import RunError, UserError
from data_pipeline.manifest import FILE_NAME
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import Tokenizer

TEXTS = (
    "", " ", "   ", "\n", " \n ", "\r\n", "a", " a", "a ", "  a  b   c  ", "two  spaces",
    "a\tb\n\nc\r\nd\u00a0e\u2003f\u3000g", "def f(x):\n    return x ** 2\n" * 3, "x" * 300,
    "The quick brown fox's 3.14159 % of [it], isn't \"it\"? <b>x</b> {y} a_b/c\\d",
    "e\u0301 a\u0308\u0323 \u1ec7 e\u0323\u0302 \u0301x A\u030a \u212b",
    "\uff21\uff22\uff23\u3000\uff11 \uff76\uff9e \u304b\u3099 \u1112\u1161\u11ab \ud55c",
    "\ufb01ne \u00bd \u2122 \u2460 \u33a5 \uff5e ~ \u2026 \u201cq\u201d \u2013 \u2014",
    "\U0001f642 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd "
    "\U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3",
    "zero\u200bwidth\u200c \u200dx\u200dy \u2060 \ufeff so\u00adft",
    "\u05e9\u05c1\u05dc\u05d5\u05dd",
    "\u0645\u064e\u0631\u0652\u062d\u0628\u0627 \u202eabc\u202c \u200f",
    "\u6f22\u5b57\u304b\u306a",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e44\u0e17\u0e22 \u0130I\u0131i \u00df\u1e9e",
    "loss \u2588\u2587\u2585\u2583\u2581 a\u2581b \u2581", "\u0000\u0001\u0007\u007f", "\ufffd",
)  # fmt: skip
NAMES = (
    "<s>", "</s>", "<unk>", "<pad>", "<mask>", "[MASK]", "[CLS]", "[SEP]", "[PAD]", "[UNK]",
    "<|endoftext|>", "<|mask|>", "<0x41>", "<0x0A>",
)  # fmt: skip
PLACES = ("{}", " {} ", "x{}y", "a {} b", "{}{}", "use {} here.\n{}")
DOCUMENTS, LONGEST, WORDS = 64, 4096, 4000
"""What is compared of a corpus: documents, tokens of each, and words."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of a Unigram model.

    Args:
        of: by id. plain: ids of pieces that are found by their scores alone.
    """

    of: Sequence[float]
    plain: frozenset[int]


def require_same_ids(
    ours: Tokenizer,
    exported: HuggingFace,
    *,
    path: Path,
    names: Sequence[str],
    scores: Scores | None = None,
) -> int:
    """Raise where ids differ; returns how many texts have another, equally likely segmentation.

    Args:
        exported: as it was written. path: of the corpus or the tokenizer. names: of special
            and user-defined pieces. scores: of a Unigram model.

    Raises:
        RunError: they differ; the text is shown.
    """
    exported.encode_special_tokens = True
    ties = 0
    for texts in _texts(ours, path, names):
        wanted = ours.encode(texts)
        found = [e.ids for e in exported.encode_batch_fast(texts, add_special_tokens=False)]
        for text, one, other in zip(texts, wanted, found, strict=True):
            if one == other:
                continue
            if scores is None or not _equally_likely(one, other, scores):
                raise RunError(_difference(text, one, other, ours))
            ties += 1
    return ties


def _texts(ours: Tokenizer, path: Path, names: Sequence[str]) -> Iterator[list[str]]:
    yield list(TEXTS)
    mentioned = dict.fromkeys((*NAMES, *names))
    yield [place.replace("{}", name) for name in mentioned for place in PLACES]
    pieces = [ours.id_to_piece(index) for index in range(ours.vocab_size)]
    yield pieces
    yield [f"a {piece} b" for piece in pieces]
    documents = list(_documents(ours, path))
    yield documents
    yield list(dict.fromkeys(word for text in documents for word in text.split()))[:WORDS]


def _documents(ours: Tokenizer, path: Path) -> Iterator[str]:
    """Some of the corpus's documents, as far as they can be read."""
    for manifest in sorted(path.glob(f"*/{FILE_NAME}")):
        try:
            split = open_split(path, manifest.parent.name, tokenizer=ours)
        except UserError:  # an incomplete corpus is not this command's business
            continue
        starts = split.document_starts()
        chosen = np.unique(np.linspace(0, split.num_documents - 1, DOCUMENTS).astype(int))
        for number in chosen if split.num_documents else ():
            first, last = int(starts[number]), int(starts[number + 1])
            yield ours.decode(split.tokens(first, min(last, first + LONGEST)).tolist())


def _equally_likely(one: Sequence[int], other: Sequence[int], scores: Scores) -> bool:
    """Whether the sums of the scores differ by no more than float32 rounds along the text."""
    left, right = Counter(one) - Counter(other), Counter(other) - Counter(one)
    if not (left.keys() | right.keys()) <= scores.plain:
        return False
    total = sum(scores.of[index] for index in one if index in scores.plain)
    difference = sum(scores.of[i] * n for i, n in left.items())
    difference -= sum(scores.of[i] * n for i, n in right.items())
    num = 1 + left.total() + right.total()
    return abs(difference) <= num * abs(total) * 2.0**-23


def _difference(text: str, one: Sequence[int], other: Sequence[int], ours: Tokenizer) -> str:
    same = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    pieces = ([ours.id_to_piece(i) for i in ids[same : same + 5]] for ids in (one, other))
    shown = text if len(text) <= 60 else text[:60] + "..."
    first, second = pieces
    return (
        f"the exported tokenizer would read {shown!r} as {second} from id {same} on, where the "
        f"corpus has {first}: nothing was written; name a tokenizer with --tokenizer that is "
        "that of the corpus, or export without one (--no-tokenizer)"
    )
