"""A network's prediction at M positions, and the protocols for querying networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from model.categorical import Categorical
from model.query import Query

Outputs = dict[str, Tensor]
"""A network's output tensors by :class:`Prediction`'s field names; categoricals as logits."""


class Table(Protocol):
    """Maps vectors to ids through the token embedding table."""

    def round(self, x_ME: Tensor) -> Tensor:
        """Round each embedding to its likeliest id, ``[M]`` (Li et al. 2022, eq. 2)."""

    def nearest(self, x_ME: Tensor) -> Tensor:
        """The embedding ``[M, E]`` nearest to each vector (clamping, Li et al., section 4.3)."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A network's output for a query; fields that it does not predict are None.

    Args:
        logits: categorical over ids.
        vector_ME: vector in embedding space: clean embedding, noise or velocity.
        clean_ME: embeddings of the clean ids, with gradient; for queries with ``x0_noise_BLE``.
        rounding: categorical over the ids of the noised clean embeddings, for the same queries.
        table: the embedding table, if the network predicts vectors.
    """

    logits: Categorical | None = None
    vector_ME: Tensor | None = None
    clean_ME: Tensor | None = None
    rounding: Categorical | None = None
    table: Table | None = None


CATEGORICALS = ("logits", "rounding")
"""Fields of :class:`Prediction` that are categoricals, given by logits."""

Answer = TypeVar("Answer", Tensor, tuple[Tensor, ...])
"""Result of reading a prediction: the same on every rank of a model replica."""

Read = Callable[[Prediction], Answer]


OWN = "own"
"""Name of the network that is trained, among those that an objective can query."""


class AskNetwork(Protocol):
    """Query one network, on one device or distributed over ranks."""

    def __call__(self, query: Query, read: Read[Answer]) -> Answer:
        """Run the network and apply ``read`` to its prediction; same on all ranks of a model."""


class Ask(Protocol):
    """Query the network that is trained, or one of the objective's frozen networks."""

    def __call__(self, query: Query, read: Read[Answer], network: str = OWN) -> Answer:
        """Run a network and apply ``read`` to its prediction; same on all ranks of a model."""


@dataclass(frozen=True)
class Networks:
    """Several networks as one :class:`Ask`.

    Args:
        own: the network that is trained; others: frozen ones, by the objective's names for them.
    """

    own: AskNetwork
    others: Mapping[str, AskNetwork] = field(default_factory=dict)

    def __call__(self, query: Query, read: Read[Answer], network: str = OWN) -> Answer:
        """Query the network of that name; ValueError if there is none."""
        if network == OWN:
            return self.own(query, read)
        if network not in self.others:
            known = ", ".join([OWN, *self.others])
            raise ValueError(
                f"no network is called {network}, there are: {known}; the objective's `networks` "
                "names them"
            )
        return self.others[network](query, read)
