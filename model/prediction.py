"""What a network predicts at M positions, by names: what it does not predict is None."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from model.categorical import Categorical
from model.query import Query

Outputs = dict[str, Tensor]
"""A network's tensors by the names of :class:`Prediction`'s fields; logits of categoricals."""


class Table(Protocol):
    """The way from vectors to ids, through the table of token embeddings."""

    def round(self, x_ME: Tensor) -> Tensor:
        """The likeliest id of each embedding, ``[M]`` (rounding, Li et al. 2022, eq. 2)."""

    def nearest(self, x_ME: Tensor) -> Tensor:
        """The embedding ``[M, E]`` nearest to each vector (clamping, section 4.3)."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A network's answer to a query, where it is computed.

    Args:
        logits: over ids.
        vector_ME: in the space of the embeddings: clean ones, noise or velocity.
        clean_ME: embeddings of the clean ids, with gradient; of queries with ``start_noise_BLE``.
        rounding: over the ids of the noised clean embeddings, likewise.
        table: of the embeddings, where the network predicts vectors.
    """

    logits: Categorical | None = None
    vector_ME: Tensor | None = None
    clean_ME: Tensor | None = None
    rounding: Categorical | None = None
    table: Table | None = None


CATEGORICALS = ("logits", "rounding")
"""Fields whose tensors are logits."""

Answer = TypeVar("Answer", Tensor, tuple[Tensor, ...])
"""What is read off a prediction: the same on every rank of a model."""

Read = Callable[[Prediction], Answer]


class Ask(Protocol):
    """A network, whole or spread over ranks, as those see it who want answers of it."""

    def __call__(self, query: Query, read: Read[Answer]) -> Answer:
        """What ``read`` makes of the prediction, alike on all ranks of a model."""
