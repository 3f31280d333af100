"""Judges: models that say how probable a text is, one kind per file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from data_pipeline.tokenizer import Tokenizer

BETWEEN = "\n\n"
"""What stands in a text between documents that share a sample."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text of a sample or of a held-out window.

    Args:
        ids: its tokens, without the frame; EOS ends each document but the last.
        text: the same as text.
    """

    ids: list[int]
    text: str


class Judge(Protocol):
    """A model that scores texts, with tokens of its own or those of the run."""

    @property
    def facts(self) -> dict[str, Any]:
        """``judge``, what it is, and ``judge_tokenizer``: whose tokens its perplexity is of."""
        ...

    def nats(self, texts: Sequence[Text]) -> np.ndarray:
        """-log p of each text in nats, and of how many tokens: float64 ``[N, 2]``."""
        ...


def text_of(ids: list[int], tokenizer: Tokenizer) -> Text:
    """A text by its ids."""
    documents: list[list[int]] = [[]]
    for token in ids:
        if token == tokenizer.eos_id:
            documents.append([])
        else:
            documents[-1].append(token)
    return Text(ids=ids, text=BETWEEN.join(map(tokenizer.decode, documents)))


def of_tokenizer(same: bool) -> str:
    """The fact ``judge_tokenizer``."""
    return "the run's" if same else "its own: compare nats per byte"
