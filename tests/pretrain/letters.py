"""Texts of letters in memory, and networks that know them, for the held-out bound."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.networks.config import ModelConfig
from model.prediction import Ask, Prediction
from model.query import Query
from pretrain.evaluation.evaluator import Evaluator

BOS, EOS, PAD, A, B, MASK = 0, 1, 2, 3, 4, 5
MODEL = DiT(vocab_size=5, width=2, num_heads=1)


class Documents:
    """A split in memory."""

    def __init__(self, documents: list[list[int]]) -> None:
        self._stream = np.array([token for text in documents for token in [*text, EOS]])
        self._starts = np.cumsum([0, *(len(text) + 1 for text in documents)])
        self.directory = "in memory"
        self.num_documents, self.num_tokens = len(documents), len(self._stream)
        self.manifest = SimpleNamespace(
            bos_id=BOS, eos_id=EOS, pad_id=PAD, bytes=sum(map(len, documents)), characters=None
        )

    def tokens(self, start: int, stop: int) -> np.ndarray:
        return self._stream[start:stop]

    def document_of(self, start: int, stop: int) -> np.ndarray:
        return np.searchsorted(self._starts, np.arange(start, stop), side="right") - 1

    def document_starts(self) -> np.ndarray:
        return self._starts

    def counts(self) -> np.ndarray:
        return np.bincount(self._stream, minlength=5)


def letters(lengths: list[int]) -> Any:
    random = np.random.default_rng(0)
    return Documents([random.choice([A, B], num).tolist() for num in lengths])


def told(logits_of: Callable[[Query], Tensor]) -> Ask:
    """A network that has these logits."""
    return lambda query, read: read(Prediction(logits=Categorical(logits_of(query))))


def evaluator(
    logits_of: Callable[[Query], Tensor],
    objective: Any,
    *,
    batch: int,
    model: ModelConfig | None = None,
    seed: int = 0,
) -> Evaluator:
    ask, model = told(logits_of), model or MODEL
    return Evaluator(ask=ask, objective=objective, model=model, seed=seed, batch=batch)


def leaning(query: Query) -> Tensor:
    """Surer of an A the more is visible: how much is masked, and where, decides the loss."""
    share_B = (query.ids_BL == MASK).double().mean(dim=1)
    row_M, _ = query.predict_mask_BL.nonzero(as_tuple=True)
    lean_M = 0.9 * (1 - share_B[row_M])
    rest_M = 0.1 * torch.ones_like(lean_M)
    columns = [0 * rest_M, rest_M, 0 * rest_M, (0.9 + lean_M) / 2, (0.9 - lean_M) / 2, 0 * rest_M]
    return torch.stack(columns, dim=1).log()
