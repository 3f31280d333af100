"""Training objectives: one published system per file, each one frozen dataclass.

The dataclass is its own configuration: ``objective: {name: mdlm, ...}`` names the file
and sets its fields. An objective corrupts a batch and turns a prediction into a loss; it
does not depend on parameters, ranks, vocabulary shards or pipeline stages.
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
"""Number of equal ranges of the noise level for which losses are also reported separately."""

Batch = dict[str, Tensor]
"""Tensors of a batch: ``tokens`` [B, L] int64, ``valid`` [B, L] bool (false at padding),
``position`` [B] int64 in the stream; with a source also ``source`` [B, S] int64 and
``source_valid`` [B, S] bool. Held-out windows also have ``free`` [B, L] bool, the tokens to score,
and those of padded texts ``ending`` [B, L] bool, the positions that follow from the length: the
last EOS and the padding. With separate attention
for documents packed into one sample, ``segment`` [B, L] int64 from 1 on."""

State = Mapping[str, Tensor]
"""State that an objective updates from its losses; empty for most. Saved with the weights."""

NO_STATE: State = MappingProxyType({})

Noise = Literal["mask", "uniform", "random", "gaussian", "none"]
"""Kinds of noise; see :attr:`Objective.noise`."""

LOSS = "loss"
"""Name of the term of a loss with a single term."""

ONE_TERM: Mapping[str, float] = MappingProxyType({LOSS: 1.0})

NO_NETWORKS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Noisy(Query):
    """A corrupted batch: the denoiser's input, and the targets and weights of the loss.

    Args:
        position_B: int64, stream position of each sample, the key of its random draws.
        target_BL: int64, clean ids.
        weight_BK: float32, loss weight of each predicted token.
        over_BL: bool, positions that the loss is averaged over, unless ``counts`` is given.
        counts: per term, the number it is averaged over: int64 scalars.
        tokens: int64 scalar, number of text tokens read; by default the number in ``over_BL``.
        eps_BLE: float32, the Gaussian noise that was added, if any.
    """

    position_B: Tensor
    target_BL: Tensor
    weight_BK: Tensor
    over_BL: Tensor
    counts: Mapping[str, Tensor] | None = None
    tokens: Tensor | None = None
    eps_BLE: Tensor | None = None

    def count(self, term: str = LOSS) -> Tensor:
        """The number that a term of the loss is averaged over: an int64 scalar."""
        return self.counts[term] if self.counts else self.over_BL.sum()


def stacked(views: Sequence[Noisy]) -> Noisy:
    """Concatenate k views of a batch into one of k B rows: row v B + b is view v of sample b.

    All views are of the same text, so ``tokens`` counts only the first one.
    """
    first = views[0]
    joined = first.each_tensor(lambda name, _: torch.cat([getattr(view, name) for view in views]))
    tokens = first.over_BL.sum() if first.tokens is None else first.tokens
    return replace(joined, tokens=tokens)


@dataclass(frozen=True, kw_only=True)
class LossSums:
    """Sums and counts of a micro-batch's losses; they are divided once, over the global batch.

    Args:
        terms: by name, the sum over the micro-batch, a scalar with gradient.
        level_loss, level_count: ``[LEVEL_BUCKETS]``, per range of the noise level: the weighted sum
            of the per-position terms, without gradient, and the number of positions in ``over_BL``.
        seen: ``[B, K]``, input to :meth:`Objective.update_state` per sample, without gradient.
    """

    terms: Mapping[str, Tensor]
    level_loss: Tensor
    level_count: Tensor
    seen: Tensor


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Scope of a held-out bound (NELBO): the quantity that it bounds.

    Args:
        length_given: whether it bounds -log p of the text given its length; an EOS that follows
            from the length is then neither predicted nor counted.
        padding: how padding is treated, in words for the report.
        end_masked: whether the end of a text (EOS and padding) is masked like the text; samplers
            then leave it free.
        exact: whether it is the exact -log p instead of a bound: one sample is enough.
    """

    length_given: bool
    padding: str
    end_masked: bool = False
    exact: bool = False


class Objective(ABC):
    """Base class of training objectives, as used by the trainer, the evaluator and the samplers."""

    summary: ClassVar[str]
    """One sentence on what a model trained with it does, with the paper."""

    trial: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Smallest run of the objective: overrides of the common small configuration, by block.

    Used by the tests of layouts, resuming, forks and commands, and by ``tools.verify``.
    """

    noise: ClassVar[Noise]
    """Kind of noise, which a sampler undoes. Tokens are replaced by [MASK] (``mask``) or any
    id (``uniform``), both under a :class:`model.schedules.Schedule` in the field ``schedule``; by
    any id, at a rate without schedule that the network is not given (``random``); by noisy
    embeddings (``gaussian``), under a :class:`model.processes.gaussian.Gaussian` in ``process``,
    with the output's parameterisation in ``prediction``; or not at all (``none``)."""

    sampler: ClassVar[str]
    """Name of the default sampler: a file of :mod:`model.samplers`."""

    estimators: ClassVar[tuple[str, ...]] = ()
    """Names of the estimators of the held-out bound, values of the field ``estimator``; empty
    where there is only one. All have one mean."""

    @property
    def needs(self) -> frozenset[Need]:
        """Features needed from network and data: by default that the network predicts ids."""
        return frozenset({Need.IDS})

    @abstractmethod
    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Corrupt a training batch; a function of the batch, its stream positions and the state."""

    def layout(self, length: int) -> AttentionLayout:
        """Attention layout for samples of ``length`` positions: by default full attention.

        Corrupted batches carry it; pipeline stages that do not see the batch call this.
        """
        return FULL

    @property
    def terms(self) -> Mapping[str, float]:
        """Weight of each term of the loss. Each term is divided by its own global count."""
        return ONE_TERM

    @abstractmethod
    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        """Per term, the loss of each predicted position ``[M]``, or of each sample ``[B, 1]``."""

    @property
    def networks(self) -> Mapping[str, str]:
        """Frozen networks that :meth:`refine` may query: by name, a native checkpoint or a run.

        Their weights (EMA weights if present) are copied into the run's own checkpoints: once one
        has been saved, the original is no longer needed. They are neither trained nor averaged,
        and must have the run's token ids.
        """
        return NO_NETWORKS

    @property
    def expansion(self) -> int:
        """Positions that the network processes, with gradient, per position of a sample."""
        return 1

    @property
    def head_share(self) -> float:
        """Average share of these positions at which the head runs; used by the planner."""
        return 1.0

    @property
    def num_seen(self) -> int:
        """K, the width of :meth:`seen`."""
        return 0

    def seen(self, losses: Mapping[str, Tensor], noisy: Noisy) -> Tensor:
        """Input to :meth:`update_state` from the losses, ``[samples, K]``: by default nothing."""
        return noisy.level_BK.new_zeros(1, 0)

    @property
    def refines(self) -> bool:
        """Whether :meth:`refine` queries a network; then every rank needs the batch."""
        return bool(self.networks)

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        """Extra forward passes without gradient on the corrupted batch, if the method has any.

        It runs before counts are reduced over ranks. All ranks of a model must call ``ask``
        equally often, whatever their samples. The result may hold several views of the batch
        (:func:`stacked`).

        Args:
            ask: ``ask(query, read)`` queries the network that is trained, with its current weights;
                ``ask(query, read, network="teacher")`` another of :attr:`networks`.
        """
        return noisy

    def init_state(self, facts: Facts) -> State:
        """The state before the first step, from corpus statistics."""
        return NO_STATE

    def update_state(
        self, state: State, seen_NK: Tensor, position_N: Tensor, draws: Draws
    ) -> State:
        """The state after a step, from the :meth:`seen` values of its batch in stream order."""
        return state

    @property
    def bound(self) -> "Bounded | None":
        """The objective as :class:`Bounded`; None if it has no bound on the likelihood."""
        return self if isinstance(self, Bounded) else None

    def counted(self, batch: Batch, model: ModelConfig) -> Tensor:
        """See :class:`Bounded`: by default the end of a padded text is given."""
        counted_BL = batch["free"] & (batch["tokens"] != model.mask)
        return counted_BL & ~batch["ending"] if "ending" in batch else counted_BL

    def scope(self, *, padded: bool) -> Scope:
        """See :class:`Bounded`."""
        told = "visible, neither predicted nor counted" if padded else "none"
        return Scope(length_given=padded, padding=told)


def check_t_min(t_min: float) -> None:
    """Raise ValueError unless ``t_min``, the least time drawn in training, is in [0, 1)."""
    if not 0.0 <= t_min < 1.0:
        raise ValueError(f"t_min must lie in [0, 1), not {t_min}")


def training_layout(
    objective: Objective, model: ModelConfig, draws: Draws, step: int, length: int
) -> AttentionLayout:
    """Attention layout of a training step (from 1): the objective's, once annealing is over."""
    if step < model.causal_annealing_steps:
        return Opening(draws=draws, step=step, steps=model.causal_annealing_steps)
    return objective.layout(length)


@runtime_checkable
class Bounded(Protocol):
    """An objective with a bound on the likelihood (NELBO)."""

    def bound_corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Corrupt a held-out batch so that its loss is an unbiased NELBO estimate in nats.

        ``batch["free"]`` marks the tokens to score, as far as they are :meth:`counted`; the others
        are given, except ``batch["ending"]``, which is treated as :meth:`scope` states.
        """

    def counted(self, batch: Batch, model: ModelConfig) -> Tensor:
        """The text tokens ``[B, L]`` (bool) that the nats are divided by: none of them given."""

    def scope(self, *, padded: bool) -> Scope:
        """What is bounded, for single padded texts (``padded``) or for a stream."""

    def bound_losses(self, prediction: Prediction, noisy: Noisy) -> Tensor:
        """Nats of each predicted position, ``[M]`` float32, which sum to the bound."""


def sum_losses(objective: Objective, prediction: Prediction, noisy: Noisy) -> LossSums:
    """Sum the losses by term and by range of the noise level, and collect :meth:`seen` values."""
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
