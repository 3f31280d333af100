"""Pairs of a source and its targets, for evaluation, and what needs no model to say of them."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from data_pipeline.sources import Documents


@dataclass(frozen=True, kw_only=True)
class References:
    """Different sources, in the order in which they come, and all targets of each."""

    sources: list[str]
    targets: list[list[str]]


def read_references(file: Path, fields: Sequence[str]) -> References:
    """From JSON-lines; pairs of one source are put together.

    Raises:
        UserError: the file cannot be read, or has no such fields.
    """
    texts = list(Documents([file], fields=fields))
    found: dict[str, list[str]] = {}
    for source, target in zip(texts[0::2], texts[1::2], strict=True):
        found.setdefault(source, []).append(target)
    return References(sources=list(found), targets=list(found.values()))


def read_sources(file: Path, field: str) -> list[str]:
    """Sources, one a line of text, or one a record."""
    documents = Documents([file], fields=[field])
    found = list(documents)
    return found if documents.form_of(file) == "text" else list(dict.fromkeys(found))


def random_targets(references: References, training: References, seed: int) -> list[str]:
    """A training target for each source, whatever the source: what fluency alone scores."""
    every = [target for own in training.targets for target in own]
    drawn = random.Random(seed)
    return [drawn.choice(every) for _ in references.sources]


def nearest_targets(references: References, training: References) -> list[str]:
    """The first target of the training source that shares most words with each source."""
    bags = [Counter(source.split()) for source in training.sources]

    def likeness(words: Counter[str], bag: Counter[str]) -> float:
        return (words & bag).total() / max(1, (words | bag).total())

    found = []
    for source in references.sources:
        words = Counter(source.split())
        best = max(range(len(bags)), key=lambda place: likeness(words, bags[place]))
        found.append(training.targets[best][0])
    return found


@dataclass(frozen=True, kw_only=True)
class Said:
    """Of outputs whose source holds something to be said, how many say it."""

    said: int
    of: int


def said(
    pattern: str, sources: Sequence[str], outputs: Sequence[str], training: References
) -> dict[str, Said]:
    """Whether what ``pattern`` captures in a source occurs in its output.

    Apart: values that occur in the training sources (``seen``), and others (``unseen``).

    Raises:
        UserError: the pattern is no regular expression with one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--must-say {json.dumps(pattern)}: {error}") from error
    if compiled.groups != 1:
        raise UserError("--must-say needs one group in parentheses: what is to be said")
    known = {m.group(1).strip() for text in training.sources if (m := compiled.search(text))}
    counts = {"seen": [0, 0], "unseen": [0, 0]}
    for source, output in zip(sources, outputs, strict=True):
        if match := compiled.search(source):
            value = match.group(1).strip()
            own = counts["seen" if value in known else "unseen"]
            own[0] += value in output
            own[1] += 1
    return {name: Said(said=found, of=total) for name, (found, total) in counts.items()}
