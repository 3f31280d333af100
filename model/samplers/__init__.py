"""Samplers: generate text from noise, one published procedure per file.

A sampler is one frozen dataclass whose fields are its settings; the folder is the registry
(``{name: ancestral, steps: 64}``). It runs a :class:`Job`: the positions to fill in, the network
and the random draws. It does not depend on ranks, vocabulary shards or pipeline stages: it passes
functions of a prediction, which are evaluated where the logits are.
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
    """Interface of a network for sampling, on one device or distributed over ranks."""

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        """Run the network and apply ``read`` to its prediction."""

    def encode(self, query: Query) -> Query:
        """Precompute what is the same at every step, such as the encoded source."""


def _unseen(ids_BL: Tensor) -> None:
    """Default ``on_step``: do nothing."""


@dataclass(kw_only=True, eq=False)
class Job:
    """A batch of samples to generate.

    Args:
        ids_BL: int64, initial ids; the sampler overwrites those at free positions.
        free_BL: bool, positions to generate; all other ids are kept.
        position_B: int64 index of each sample; samples with different indices get independent
            draws.
        draws: the random draws.
        objective: the objective that the network was trained with; which further attributes it
            has depends on its :attr:`model.objectives.Objective.noise`.
        model: the network's configuration.
        network: the network.
        state: the objective's state.
        valid_BL: bool, false at padding; None if there is none.
        source_BS, source_valid_BS: int64 ids of the text to condition on, and bool, false at its
            padding; None if there is no source.
        end: the id by which texts end, if the model decides where; a sampler may stop there.
        on_step: called with the ids ``[B, L]`` after every step; positions may still hold noise.

    Attributes:
        evaluations: number of network evaluations so far (NFE).
    """

    ids_BL: Tensor
    free_BL: Tensor
    position_B: Tensor
    draws: Draws
    objective: Any
    model: ModelConfig
    network: SampledNetwork
    state: State = field(default_factory=lambda: NO_STATE)
    valid_BL: Tensor | None = None
    source_BS: Tensor | None = None
    source_valid_BS: Tensor | None = None
    end: int | None = None
    on_step: Callable[[Tensor], object] = _unseen
    evaluations: int = field(default=0, init=False)

    def ask(self, query: Query, read: Read[Answer], *, texts: int = 1) -> Answer:
        """Evaluate the network and apply ``read`` to its prediction.

        The query is of some or all of the samples, or of several texts for each of them, which
        count as so many evaluations.

        Args:
            texts: number of texts for a sample.
        """
        self.evaluations += texts
        return self.network.ask(query, read)

    def encode(self, query: Query) -> Query:
        """Precompute what is the same at every step, such as the encoded source."""
        return self.network.encode(query)

    def query(self, ids_BL: Tensor, level: float) -> Query:
        """Query for all free positions at a noise level, with the source already encoded."""
        return self.encode(
            Query(
                ids_BL=ids_BL,
                level_BK=torch.full((len(ids_BL), 1), level, device=ids_BL.device),
                predict_mask_BL=self.free_BL,
                valid_BL=self.valid_BL,
                source_BS=self.source_BS,
                source_valid_BS=self.source_valid_BS,
            )
        )


class Sampler(ABC):
    """Base class of samplers; subclasses are frozen dataclasses whose fields are the settings."""

    undoes: ClassVar[tuple[Noise, ...]]
    """The kinds of noise that the sampler is for."""

    lays_out: ClassVar[bool] = False
    """Whether it uses the attention layout of objectives that set one
    (:attr:`model.needs.Need.OWN_LAYOUT`)."""

    any_length: ClassVar[bool] = False
    """Whether it writes texts longer than those of training, which the network need not see
    whole."""

    @property
    def name(self) -> str:
        """Name in the registry: the file name."""
        return method_name(self)

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """Check that the sampler can sample a network; subclasses add their own checks.

        Raises:
            ValueError: it cannot; the message gives the reason.
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
        """The sampler with its defaults limited to what the objective supports."""
        return self

    def trained_on(self, length: int) -> "Sampler":
        """The sampler with defaults for a network trained on texts of ``length`` positions."""
        return self

    def check_free(self, free_BL: Tensor, objective: Any) -> None:  # noqa: B027 - few say no
        """Check that it can generate these positions and keep the others: by default it can.

        Raises:
            ValueError: it cannot; the message gives an alternative.
        """

    @abstractmethod
    def num_steps(self, length: int) -> int:
        """Maximum number of calls of :attr:`Job.on_step` for texts of ``length`` positions."""

    @abstractmethod
    def run(self, job: Job) -> Tensor:
        """Generate the ids ``[B, L]``; the job's own ids are not modified."""


MOST_STEPS = 2**24


def check_steps(steps: int) -> None:
    """Raise ValueError unless ``steps`` is between 1 and :data:`MOST_STEPS`."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if steps > MOST_STEPS:
        raise ValueError(f"steps must be at most {MOST_STEPS:,}, not {steps}")


def check_temperature(temperature: float) -> None:
    """Raise ValueError if the temperature is negative."""
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, not {temperature}")


def check_top_p(top_p: float) -> None:
    """Raise ValueError unless ``top_p`` is in (0, 1]."""
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must lie in (0, 1], not {top_p}")


def check_guidance(guidance: float) -> None:
    """Raise ValueError if the weight of the guidance is negative."""
    if guidance < 0:
        raise ValueError(f"guidance must not be negative, not {guidance}")
