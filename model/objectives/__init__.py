"""Training objectives: one published system per file, each one frozen dataclass.

The dataclass is its own configuration: ``objective: {name: mdlm, ...}`` names the file
and sets its fields. An objective corrupts a batch and turns a prediction into a loss; it
sees no parameters, ranks, vocabulary shards or pipeline stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from model.draws import Draws
from model.facts import Facts
from model.needs import Need
from model.networks.attention_layouts import FULL, AttentionLayout, Opening
from model.networks.config import ModelConfig
from model.prediction import Ask, Prediction
from model.query import Query

LEVEL_BUCKETS = 10
"""Equal ranges of the level, over which losses are also reported apart."""

Batch = dict[str, Tensor]
"""``tokens`` [B, L] int64, ``valid`` [B, L] bool, ``position`` [B] int64 in the stream; with
a source also ``source`` [B, S] int64 and ``source_valid`` [B, S] bool. Held-out windows of padded
texts also have ``ending`` [B, L] bool, what the length decides: the last EOS and the padding.
Where documents that share a sample are told apart, ``segment`` [B, L] int64 from 1 on."""

State = Mapping[str, Tensor]
"""What an objective has learnt of its own losses; empty for most. It is saved with the weights."""

NO_STATE: State = MappingProxyType({})

Noise = Literal["mask", "uniform", "random", "gaussian", "none"]
"""Kinds of noise; see :attr:`Objective.noise`."""

LOSS = "loss"
"""The term of a loss that has one only."""

ONE_TERM: Mapping[str, float] = MappingProxyType({LOSS: 1.0})

NO_NETWORKS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Noisy(Query):
    """A corrupted batch: what the denoiser reads and what the loss compares it with.

    Args:
        position_B: int64, the stream position of each sample, which its draws are named by.
        target_BL: int64, the clean ids.
        weight_BK: float32, of each predicted token in the loss.
        over_BL: bool, the positions that the loss is a mean over, if ``counts`` says no other.
        counts: by term, what it is a mean over: int64 scalars.
        tokens: int64 scalar, the text that was read for it; by default ``over_BL``'s.
        eps_BLE: float32, the Gaussian noise that was mixed in, where there is any.
    """

    position_B: Tensor
    target_BL: Tensor
    weight_BK: Tensor
    over_BL: Tensor
    counts: Mapping[str, Tensor] | None = None
    tokens: Tensor | None = None
    eps_BLE: Tensor | None = None

    def count(self, term: str = LOSS) -> Tensor:
        """What a term of the loss is a mean over: an int64 scalar."""
        return self.counts[term] if self.counts else self.over_BL.sum()


def stacked(views: Sequence[Noisy]) -> Noisy:
    """Several views of a batch as one of k B rows: row v B + b is view v of sample b.

    It is the text of one view that was read: ``tokens`` is the first one's.
    """
    first = views[0]
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(view, name) for view in views])
        for name, value in vars(first).items()
        if isinstance(value, Tensor) and value.dim()
    }
    tokens = first.over_BL.sum() if first.tokens is None else first.tokens
    return replace(first, **tensors, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """Sums and counts, never means: they are divided once, over the global batch.

    Args:
        terms: by name, the sum over the micro-batch, a scalar with gradient.
        level_loss, level_count: ``[LEVEL_BUCKETS]``, the weighted terms that have a loss at each
            position by range of the level, without gradient, and the positions of ``over_BL``.
        seen: ``[B, K]``, what :meth:`Objective.update_state` gets of each sample, without gradient.
    """

    terms: Mapping[str, Tensor]
    level_loss: Tensor
    level_count: Tensor
    seen: Tensor


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a held-out bound is a bound on.

    Args:
        length_given: whether it is of the text given its length; an EOS that the length tells
            is then neither predicted nor counted.
        padding: what becomes of it, in words.
        end_masked: whether how a text ends is masked with the text; samplers leave it open then.
        exact: whether it is no bound but the thing itself: one sample of it is as good as many.
    """

    length_given: bool
    padding: str
    end_masked: bool = False
    exact: bool = False


class Objective(ABC):
    """What the trainer, the evaluator and the samplers know of a method."""

    summary: ClassVar[str]
    """What a model that is trained by it does, in a sentence, with the paper."""

    trial: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Its smallest run: blocks of a configuration that are laid over the common small one.

    The tests of layouts, resuming, forks and commands, and ``tools.verify``, find it here.
    """

    noise: ClassVar[Noise]
    """What corruption puts in the place of tokens, which a sampler undoes: [MASK] (``mask``) or any
    id (``uniform``), both by a :class:`model.schedules.Schedule` named ``schedule``; any id, at a
    rate that no schedule and no level tells (``random``); noisy embeddings (``gaussian``), by a
    :class:`model.processes.gaussian.Gaussian` named ``process`` and a ``prediction`` that says
    what the network's output is; or nothing (``none``)."""

    sampler: ClassVar[str]
    """The name of its own sampler, the default: a file of :mod:`model.samplers`."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it wants of network and data: by default that the network predicts ids."""
        return frozenset({Need.IDS})

    @abstractmethod
    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """The training corruption: a function of the batch, its stream positions and the state."""

    def layout(self, length: int) -> AttentionLayout:
        """Which positions of samples of ``length`` attend to which: by default all to all.

        Corrupted batches have it as theirs; a stage of a pipeline that sees none asks here.
        """
        return FULL

    @property
    def terms(self) -> Mapping[str, float]:
        """The weight of each term of the loss. Each is divided by its own global count."""
        return ONE_TERM

    @abstractmethod
    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """By term, the loss of each predicted position ``[M]``, or of each sample ``[B, 1]``."""

    @property
    def networks(self) -> Mapping[str, str]:
        """Frozen networks that :meth:`refine` may ask: by name, a checkpoint of ours or a run.

        Their averaged weights, where there are such, are copied into the run's own checkpoints:
        once it has one, the run needs the named one no more. They are neither trained nor
        averaged, and their ids are the run's.
        """
        return NO_NETWORKS

    @property
    def expansion(self) -> int:
        """How many positions the network reads, with gradient, for each of a sample."""
        return 1

    @property
    def head_share(self) -> float:
        """At which share of these positions the head runs, on average; planners ask."""
        return 1.0

    @property
    def num_seen(self) -> int:
        """K of :meth:`seen`."""
        return 0

    def seen(self, losses: Mapping[str, Tensor], noisy: Noisy) -> Tensor:
        """Of these losses what :meth:`update_state` gets, ``[samples, K]``: by default nothing."""
        return noisy.level_BK.new_zeros(1, 0)

    @property
    def refines(self) -> bool:
        """Whether :meth:`refine` asks anything: every rank reads the batch then."""
        return bool(self.networks)

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        """The corrupted batch after passes without gradient, where the method has any.

        It comes before the counts are known to all ranks. Each rank of a model asks as often
        as the others, whatever is in its samples. The result may be of several views of the
        batch, stacked (:func:`stacked`).

        Args:
            ask: ``ask(query, read)`` for the network that is trained, with its present weights;
                ``ask(query, read, network="teacher")`` for another of :attr:`networks`.
        """
        return noisy

    def init_state(self, facts: Facts) -> State:
        """The state before the first step, from what is known of the corpus."""
        return NO_STATE

    def update_state(
        self, state: State, seen_NK: Tensor, position_N: Tensor, draws: Draws
    ) -> State:
        """The state after a step, from what was :meth:`seen` of its batch in stream order."""
        return state

    @property
    def bound(self) -> "Bounded | None":
        """The objective as one with a bound on the likelihood; None where it has none."""
        return self if isinstance(self, Bounded) else None

    def counted(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Tensor:
        """See :class:`Bounded`: by default how a padded text ends is given."""
        counted_BL = free_BL & (batch["tokens"] != model.mask)
        return counted_BL & ~batch["ending"] if "ending" in batch else counted_BL

    def scope(self, *, padded: bool) -> Scope:
        """See :class:`Bounded`."""
        told = "visible, neither predicted nor counted" if padded else "none"
        return Scope(length_given=padded, padding=told)


def training_layout(
    objective: Objective, model: ModelConfig, draws: Draws, step: int, length: int
) -> AttentionLayout:
    """The attention layout of a training step (from 1): the objective's, once attention is open."""
    if step < model.causal_annealing_steps:
        return Opening(draws=draws, step=step, steps=model.causal_annealing_steps)
    return objective.layout(length)


@runtime_checkable
class Bounded(Protocol):
    """An objective with a bound on the likelihood."""

    def bound_corrupt(
        self,
        batch: Batch,
        free_BL: Tensor,
        draws: Draws,
        model: ModelConfig,
        state: State = NO_STATE,
    ) -> Noisy:
        """A corruption whose loss is an unbiased estimate of -log p's bound in nats.

        ``free_BL`` (bool) marks the tokens that are :meth:`counted`; the others are given,
        but for ``batch["ending"]``, of which the :meth:`scope` tells.
        """

    def counted(self, batch: Batch, free_BL: Tensor, model: ModelConfig) -> Tensor:
        """Which of the text's tokens ``[B, L]`` (bool) the nats are divided by: none is given."""

    def scope(self, *, padded: bool) -> Scope:
        """What the bound is of, for texts that stand alone and are padded, or for a stream."""

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """The nats of each predicted position, ``[M]`` float32, that sum to the bound."""


def sum_losses(objective: Objective, prediction: Prediction, noisy: Noisy) -> LossSums:
    """Sums of the losses: by term, by range of the level, and what is seen of each sample."""
    losses = objective.losses(prediction, noisy)
    row_M, column_M = noisy.predict_mask_BL.nonzero(as_tuple=True)
    bucket_BL = (noisy.level_BK * LEVEL_BUCKETS).long().clamp(0, LEVEL_BUCKETS - 1)
    bucket_BL = bucket_BL.expand(noisy.ids_BL.shape)
    bucket_M, counted = bucket_BL[row_M, column_M], bucket_BL[noisy.over_BL]
    zeros = torch.zeros(LEVEL_BUCKETS, device=bucket_BL.device)
    level_loss = zeros
    for name, loss in losses.items():
        if loss.dim() == 1:
            weighted_M = objective.terms[name] * loss.detach()
            level_loss = level_loss.index_add(0, bucket_M, weighted_M)
    return LossSums(
        terms={name: loss.sum() for name, loss in losses.items()},
        level_loss=level_loss,
        level_count=zeros.index_add(0, counted, torch.ones_like(counted, dtype=torch.float32)),
        seen=objective.seen({name: loss.detach() for name, loss in losses.items()}, noisy),
    )
