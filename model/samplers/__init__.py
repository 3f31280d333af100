"""Samplers: from a start to text, one published procedure per file, for every kind of noise.

A sampler is one frozen dataclass whose fields are its settings; the folder is the registry
(``{name: ancestral, steps: 64}``). It runs a :class:`Job`: what is to be written, by which
network, with which draws. It sees no ranks, shards of the vocabulary or pipeline stages: it asks
questions of predictions, which are answered where the logits are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from model.draws import Draws
from model.naming import method_name
from model.needs import Need
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, Noise, State
from model.prediction import Answer, Read
from model.query import Query


class SampledNetwork(Protocol):
    """What sampling asks of a network, whole or spread over ranks."""

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """What ``read`` makes of the prediction."""

    def encode(self, query: Query) -> Query:
        """The query with what is the same at every step encoded once."""


def _unseen(ids_BL: Tensor) -> None:
    """Nobody looks on."""


@dataclass(kw_only=True, eq=False)
class Job:
    """Samples to be drawn together.

    Args:
        ids_BL: int64, the start. What free positions hold is for the sampler to say.
        free_BL: bool, the positions that are written; every other id stays as it is.
        position_B: int64 number of each sample; it alone tells the samples' draws apart.
        draws: the randomness.
        objective: that the network was trained by; what it has beside the rest follows from its
            :attr:`model.objectives.Objective.noise`.
        model: the network's configuration.
        network: whom to ask.
        state: what the objective has learnt.
        source_BS, source_valid_BS: int64 ids of what the text is conditioned on, and bool, their
            padding excluded; None where there is no source.
        on_step: called with the ids ``[B, L]`` after every step; positions may still hold noise.

    Attributes:
        evaluations: of the network so far (NFE).
    """

    ids_BL: Tensor
    free_BL: Tensor
    position_B: Tensor
    draws: Draws
    objective: Any
    model: ModelConfig
    network: SampledNetwork
    state: State = field(default_factory=lambda: NO_STATE)
    source_BS: Tensor | None = None
    source_valid_BS: Tensor | None = None
    on_step: Callable[[Tensor], object] = _unseen
    evaluations: int = field(default=0, init=False)

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """What ``read`` makes of the prediction: one evaluation of the network."""
        self.evaluations += 1
        return self.network.ask(query, read)

    def encode(self, query: Query) -> Query:
        """The query with what is the same at every step encoded once, such as the source."""
        return self.network.encode(query)

    def query(self, ids_BL: Tensor, level: float) -> Query:
        """A question about all free positions at a level, given the source, which is encoded."""
        return self.encode(
            Query(
                ids_BL=ids_BL,
                level_BK=torch.full((len(ids_BL), 1), level, device=ids_BL.device),
                predict_mask_BL=self.free_BL,
                source_BS=self.source_BS,
                source_valid_BS=self.source_valid_BS,
            )
        )


class Sampler(ABC):
    """A procedure; deriving classes are frozen dataclasses, whose fields are its settings."""

    undoes: ClassVar[tuple[Noise, ...]]
    """The kinds of noise that it is made for."""

    lays_out: ClassVar[bool] = False
    """Whether it asks with the attention that an objective lays out
    (:attr:`model.needs.Need.OWN_LAYOUT`)."""

    @property
    def name(self) -> str:
        """In the registry: that of its file."""
        return method_name(self)

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """Whether it can sample a network; deriving classes add what else they need.

        Raises:
            ValueError: it cannot, in a sentence that says why.
        """
        method = method_name(objective)
        if objective.noise not in self.undoes:
            raise ValueError(
                f"sampler {self.name} undoes noise of kind {' or '.join(self.undoes)}, and that of "
                f"objective {method} is {objective.noise}: its own sampler is {objective.sampler}"
            )
        if Need.OWN_LAYOUT in objective.needs and not self.lays_out:
            raise ValueError(
                f"sampler {self.name} lets all positions attend to one another, which objective "
                f"{method} does not: its own sampler is {objective.sampler}"
            )

    def within(self, objective: Any) -> "Sampler":
        """The same, its defaults cut down to what an objective has whose noise it undoes."""
        return self

    def check_free(self, free_BL: Tensor, objective: Any) -> None:  # noqa: B027 - few say no
        """Whether it can write these positions and leave the others: by default it can.

        Raises:
            ValueError: it cannot, in a sentence that says how to ask instead.
        """

    @abstractmethod
    def num_steps(self, length: int) -> int:
        """How often :attr:`Job.on_step` is called at most, for texts of ``length`` positions."""

    @abstractmethod
    def run(self, job: Job) -> Tensor:
        """The ids ``[B, L]``; those of the job are left as they are."""


MOST_STEPS = 2**24


def check_steps(steps: int) -> None:
    """ValueError unless there is one at least, and no more than can be planned."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if steps > MOST_STEPS:
        raise ValueError(f"steps must be at most {MOST_STEPS:,}, not {steps}")


def check_temperature(temperature: float) -> None:
    """ValueError where it is negative."""
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, not {temperature}")


def check_top_p(top_p: float) -> None:
    """ValueError where it is no share."""
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
