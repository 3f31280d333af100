"""The settings that held-out evaluations share: model, objective, seed, this rank's batches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch

from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, Objective, State
from model.prediction import Ask

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Share:
    """The batches that a rank evaluates: every ``size``-th one, from ``rank`` on.

    Ranks without a batch of their own in the last round run its first one again and discard the
    result, since under ZeRO 3 a forward pass is a collective.
    """

    rank: int = 0
    size: int = 1

    def batches(self, items: Iterable[T]) -> Iterator[tuple[list[T], T, bool]]:
        """For each round the batches of all ranks, this rank's one, and whether it counts."""
        iterator = iter(items)
        while turn := list(islice(iterator, self.size)):
            mine = self.rank < len(turn)
            yield turn, turn[self.rank if mine else 0], mine


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Arguments that the bound (:mod:`.bound`) and the losses (:mod:`.losses`) share.

    Args:
        ask: forward passes of the model.
        objective: of the run.
        model: configuration of the network.
        seed: of the corruptions.
        batch: samples per forward pass.
        state: of the objective.
        share: of the batches; the results of all shares have to be summed.
        device: of the forward passes.
        on_batch: called after each round with the number of samples that all ranks have done.
    """

    ask: Ask
    objective: Objective
    model: ModelConfig
    seed: int
    batch: int
    state: State = field(default_factory=lambda: NO_STATE)
    share: Share = Share()
    device: torch.device | str = "cpu"
    on_batch: Callable[[int], object] = lambda done: None

    def draws(self, num: int) -> Draws:
        """The random numbers of ``num`` corruptions."""
        return Draws(seed=self.seed, split="valid", batch=num)
