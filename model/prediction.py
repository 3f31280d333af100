"""What a network predicts at M positions, by names: what it does not predict is None."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        clean_ME: embeddings of the clean ids, with gradient; of queries with ``x0_noise_BLE``.
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


OWN = "own"
"""The name of the network that is trained, among those that an objective asks."""


class AskNetwork(Protocol):
    """One network, whole or spread over ranks, as those see it who want answers of it."""

    def __call__(self, query: Query, read: Read[Answer]) -> Answer:
        """What ``read`` makes of the prediction, alike on all ranks of a model."""


class Ask(Protocol):
    """The network that is trained, and the frozen ones that its objective names."""

    def __call__(self, query: Query, read: Read[Answer], network: str = OWN) -> Answer:
        """What ``read`` makes of a network's prediction, alike on all ranks of a model."""


@dataclass(frozen=True)
class Networks:
    """Several networks as one :class:`Ask`.

    Args:
        own: the one that is trained; others: by the names that the objective gives them.
    """

    own: AskNetwork
    others: Mapping[str, AskNetwork] = field(default_factory=dict)

    def __call__(self, query: Query, read: Read[Answer], network: str = OWN) -> Answer:
        """The answer of the network of that name; ValueError where there is none."""
        if network == OWN:
            return self.own(query, read)
        if network not in self.others:
            known = ", ".join([OWN, *self.others])
            raise ValueError(
                f"no network is called {network}, there are: {known}; the objective's `networks` "
                "names them"
            )
        return self.others[network](query, read)
