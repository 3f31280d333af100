"""Pairs of source and targets for evaluation, baselines without a model, and counts of mentions."""

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
    """Distinct sources in the order of the file, and all targets of each."""

    sources: list[str]
    targets: list[list[str]]


def read_references(file: Path, fields: Sequence[str]) -> References:
    """Read pairs from JSON lines; targets of the same source are grouped.

    Raises:
        UserError: the file cannot be read, or has no such fields.
    """
    texts = list(Documents([file], fields=fields))
    found: dict[str, list[str]] = {}
    for source, target in zip(texts[0::2], texts[1::2], strict=True):
        found.setdefault(source, []).append(target)
    return References(sources=list(found), targets=list(found.values()))


def read_sources(file: Path, field: str) -> list[str]:
    """Read sources: one per line of a text file, or the field of each JSON record."""
    documents = Documents([file], fields=[field])
    found = list(documents)
    return found if documents.form_of(file) == "text" else list(dict.fromkeys(found))


def random_targets(references: References, training: References, seed: int) -> list[str]:
    """A random training target for each source: the score of fluent but unrelated text."""
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
class Mentions:
    """How many outputs contain the value captured in their source: ``said`` of ``of``."""

    said: int
    of: int


def count_mentions(
    pattern: str, sources: Sequence[str], outputs: Sequence[str], training: References
) -> dict[str, Mentions]:
    """Count outputs that contain what ``pattern`` captures in their source.

    Values that occur in the training sources (``seen``) are counted apart from others (``unseen``).

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
    return {name: Mentions(said=found, of=total) for name, (found, total) in counts.items()}
