"""A small labelled task that needs no download: are the words of a text in their order?

The texts are pieces of the demo corpus, cut without regard to sentences. Half of them stand as
they were written; in the others every two neighbours have changed places. Both halves have the same
words, so that counting them says nothing, and knowing which word follows which says all: what
pretraining is there to learn. It is a task of CoLA's kind (Warstadt et al. 2019), made by machine.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.atomic_directory import atomic_directory
from data_pipeline.demo import demo_documents

WORDS = 16
"""Words of a labelled text."""

UNLABELLED_WORDS = 32
"""Words of a text to pretrain on."""

WRITTEN, EXCHANGED = "written", "exchanged"


def make_order(folder: Path, *, seed: int) -> dict[str, int]:
    """Write the task; the number of rows of each file.

    ``train.jsonl`` and ``test.jsonl`` have labels. ``unlabelled.jsonl`` and ``held-out.jsonl`` are
    the same documents without, to pretrain on. Those of ``test`` and ``held-out`` are held out of
    the demo corpus; no document is in both.

    Args:
        seed: of what is exchanged.

    Raises:
        UserError: the folder is there already, and not empty.
    """
    documents, drawn = demo_documents(), random.Random(seed)
    files = {
        "train": _labelled(documents["train"], drawn),
        "test": _labelled(documents["valid"], drawn),
        "unlabelled": [{"text": text} for text in _texts(documents["train"], UNLABELLED_WORDS)],
        "held-out": [{"text": text} for text in _texts(documents["valid"], UNLABELLED_WORDS)],
    }
    with atomic_directory(folder) as staging:
        for name, rows in files.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (staging / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {f"{name}.jsonl": len(rows) for name, rows in files.items()}


def _labelled(documents: Sequence[str], drawn: random.Random) -> list[dict[str, str]]:
    """Texts in random order, every second one with its neighbours exchanged."""
    texts = list(_texts(documents, WORDS))
    drawn.shuffle(texts)
    return [
        {"text": exchanged(text), "label": EXCHANGED} if number % 2 else
        {"text": text, "label": WRITTEN}
        for number, text in enumerate(texts)
    ]  # fmt: skip


def exchanged(text: str) -> str:
    """The text with every two neighbouring words in each other's place; an odd last one stays."""
    words = text.split()
    pairs = zip(words[1::2], words[::2], strict=False)
    return " ".join([word for pair in pairs for word in pair] + words[len(words) // 2 * 2 :])


def _texts(documents: Sequence[str], size: int) -> Iterator[str]:
    """The words of each document in pieces; what fills none is left out."""
    for document in documents:
        words = document.split()
        for first in range(0, len(words) - size + 1, size):
            yield " ".join(words[first : first + size])
