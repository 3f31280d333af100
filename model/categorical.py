"""Categorical distributions over a vocabulary that may be sharded over tensor-parallel ranks.

A formula over a sharded vocabulary works on this rank's rows ``[M, R]`` with two primitives, each
the transpose of the other: :meth:`Categorical.total` sums over the rows of all ranks, with a result
that is replicated on all of them; :meth:`Categorical.spread` broadcasts a replicated value to the
rows. A formula that omits the second has the right value and a wrong gradient (Shoeybi et al. 2019,
Megatron-LM, section 3: g and f).

M is the number of positions, R of vocabulary rows on this rank, E the width of a table.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

from model.draws import Draws
from model.log_prob import LogProb, rows_at_once


class Rows(Protocol):
    """This rank's shard of the vocabulary rows, and the collectives over all shards.

    Attributes:
        first: the id of this rank's first row.
        num: total number of rows over all ranks.
    """

    first: int
    num: int

    def sum(self, x: Tensor) -> Tensor:
        """All-reduce sum over ranks; identity in backward."""

    def copy(self, x: Tensor) -> Tensor:
        """Identity in forward; all-reduce sum of the gradient in backward."""

    def largest(self, x: Tensor) -> Tensor:
        """All-reduce maximum over ranks, without gradient."""

    def gather(self, x_MR: Tensor) -> Tensor:
        """All-gather the rows of all ranks, ``[M, num]``, without gradient."""

    def best(self, scores_MR: Tensor) -> Tensor:
        """The id of the highest score over all ranks, ``[M]``; ties go to the lowest id."""

    def log_prob(self, logits_MR: Tensor, ids_M: Tensor) -> Tensor:
        """log p of one id per position, ``[M]`` float32, with gradient, memory-efficient."""


class AllRows:
    """The unsharded vocabulary on one rank; collectives do nothing."""

    def __init__(self, num: int) -> None:
        self.first, self.num = 0, num

    def sum(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def copy(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def largest(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def gather(self, x_MR: Tensor) -> Tensor:
        """Identity."""
        return x_MR

    def best(self, scores_MR: Tensor) -> Tensor:
        """The argmax, ``[M]``; ties go to the lowest id."""
        return scores_MR.argmax(dim=-1)

    def log_prob(self, logits_MR: Tensor, ids_M: Tensor) -> Tensor:
        """See :class:`model.log_prob.LogProb`."""
        log_p_M: Tensor = LogProb.apply(logits_MR, ids_M)
        return log_p_M


class Categorical:
    """A categorical at each of M positions, given by logits ``[M, R]``; computed lazily.

    Args:
        logits_MR: of any floating type, -inf at ids that are never predicted; formulas are
            evaluated in float32.
        rows: which rows of the vocabulary these are; by default all.
    """

    def __init__(self, logits_MR: Tensor, rows: Rows | None = None) -> None:
        self.logits_MR = logits_MR
        self.rows: Rows = rows or AllRows(logits_MR.shape[-1])

    # -- primitives -----------------------------------------------------------------------

    def total(self, x_MR: Tensor) -> Tensor:
        """Sum over the vocabulary, ``[M]``, the same on all ranks."""
        return self.rows.sum(x_MR.sum(dim=-1))

    def spread(self, x_M: Tensor) -> Tensor:
        """Broadcast a value that is the same on all ranks, ``[M, 1]``, for use on their rows."""
        return self.rows.copy(x_M)[:, None]

    def one_hot(self, ids_M: Tensor) -> Tensor:
        """One-hot of each id, float32 ``[M, R]``; all zeros if the id is on another rank."""
        here_R = self.rows.first + torch.arange(self.logits_MR.shape[-1], device=ids_M.device)
        return (ids_M[:, None] == here_R).float()

    def at(self, x_MR: Tensor, ids_M: Tensor) -> Tensor:
        """Gather one id per position from a matrix shaped like the logits, ``[M]``."""
        column_M = ids_M - self.rows.first
        size = x_MR.shape[-1]
        here_M = (column_M >= 0) & (column_M < size)
        value_M = x_MR.gather(1, column_M.clamp(0, size - 1)[:, None])[:, 0]
        return self.rows.sum(torch.where(here_M, value_M, torch.zeros_like(value_M)))

    def log_p(self) -> Tensor:
        """log p of this rank's rows, float32 ``[M, R]``."""
        return self.logits_MR.float() - self.spread(self.logsumexp())

    # -- formulas -------------------------------------------------------------------------

    def logsumexp(self) -> Tensor:
        """log-sum-exp of the logits over the vocabulary, float32 ``[M]``."""
        logits_MR = self.logits_MR.float()
        largest_M = self.rows.largest(logits_MR.detach().amax(dim=-1))
        return self.total((logits_MR - largest_M[:, None]).exp()).log() + largest_M

    def log_prob(self, ids_M: Tensor) -> Tensor:
        """log p of one id per position, ``[M]`` float32, with gradient."""
        return self.rows.log_prob(self.logits_MR, ids_M)

    def entropy(self) -> Tensor:
        """Entropy -sum p log p, ``[M]`` nats."""
        log_p_MR = self.log_p()
        return -self.total(log_p_MR.exp() * _finite(log_p_MR))

    def kl(self, other: "Categorical") -> Tensor:
        """KL(self || other), ``[M]`` nats; inf where ``other`` is 0 and this one is not."""
        log_p_MR = self.log_p()
        never_MR = log_p_MR == -torch.inf
        # Mask each operand first: the gradient of inf - inf is NaN and cannot be masked after.
        mine_MR, other_MR = (x.masked_fill(never_MR, 0.0) for x in (log_p_MR, other.log_p()))
        return self.total(log_p_MR.exp() * (mine_MR - other_MR))

    def mean(self, table_RE: Tensor) -> Tensor:
        """Mean of a table's rows under p, ``[M, E]`` float32; pass this rank's rows if sharded."""
        return self.rows.sum(self.log_p().exp() @ table_RE.float())

    def guided(
        self, other: "Categorical", scale: float, space: Literal["log_p", "p"]
    ) -> "Categorical":
        """Classifier-free guidance (Ho & Salimans 2022): ``other + scale (self - other)``.

        ``other`` is the unconditional prediction; scale 1 gives ``self``, 0 gives ``other``. The
        result is normalised. In the space of log p it is the same as on logits. In the space of
        p, negative values are set to 0. Ids excluded by either stay excluded.
        """
        mine_MR, other_MR = self.log_p(), other.log_p()
        never_MR = (mine_MR == -torch.inf) | (other_MR == -torch.inf)
        mine_MR, other_MR = (x.masked_fill(never_MR, 0.0) for x in (mine_MR, other_MR))
        if space == "log_p":
            moved_MR = other_MR + scale * (mine_MR - other_MR)
        else:
            mine_MR, other_MR = mine_MR.exp(), other_MR.exp()
            p_MR = other_MR + scale * (mine_MR - other_MR)
            never_MR = never_MR | (p_MR <= 0)
            moved_MR = p_MR.masked_fill(never_MR, 1.0).log()
        return Categorical(moved_MR.masked_fill(never_MR, -torch.inf), self.rows)

    # -- draws ----------------------------------------------------------------------------

    @torch.no_grad()
    def top_p(self, share: float) -> "Categorical":
        """Keep the likeliest ids whose probabilities sum to at least ``share`` (at least one id).

        Nucleus sampling (Holtzman et al. 2020). Ties are kept or dropped together.

        Raises:
            ValueError: ``share`` is not in (0, 1].
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], not {share}")
        sorted_MV = self.rows.gather(self.logits_MR).sort(dim=-1, descending=True).values
        p_MV = sorted_MV.double().softmax(dim=-1)
        kept_M = (p_MV.cumsum(dim=-1) - p_MV < share).sum(dim=-1).clamp(min=1)
        return self._only(self.logits_MR >= sorted_MV.gather(1, kept_M[:, None] - 1))

    @torch.no_grad()
    def top_k(self, num: int) -> "Categorical":
        """Keep the ``num`` likeliest ids, and those tied with the last of them.

        Raises:
            ValueError: ``num`` is below 1.
        """
        if num < 1:
            raise ValueError(f"top_k must be at least 1, not {num}")
        all_MV = self.rows.gather(self.logits_MR)
        least_M1 = all_MV.topk(min(num, all_MV.shape[-1]), dim=-1).values[:, -1:]
        return self._only(self.logits_MR >= least_M1)

    def _only(self, kept_MR: Tensor) -> "Categorical":
        return Categorical(self.logits_MR.masked_fill(~kept_MR, -torch.inf), self.rows)

    def best(self) -> tuple[Tensor, Tensor]:
        """The likeliest id at each position and its log p, ``[M]`` each."""
        ids_M = self.rows.best(self.logits_MR)
        return ids_M, self.log_prob(ids_M)

    def sample(
        self, draws: Draws, kind: str, position_M: Tensor, column_M: Tensor, temperature: float
    ) -> Tensor:
        """Sample one id per position, ``[M]``, with one draw per position; see :meth:`pick`.

        Args:
            draws: the randomness; kind: its purpose.
            position_M: stream position of the sample that each row belongs to.
            column_M: its position in the sequence.
            temperature: 0 takes the likeliest id.
        """
        return self.pick(draws.uniform_at(kind, position_M, column_M), temperature)

    @torch.no_grad()
    def pick(self, uniform_M: Tensor, temperature: float) -> Tensor:
        """Sample one id per position, ``[M]``, by inverting the cumulative distribution.

        In float64, a few rows at a time: a low-precision draw silently lowers the temperature
        (Zheng et al. 2024, "Masked diffusion models are secretly time-agnostic masked models",
        section 5).

        Args:
            uniform_M: float64 in (0, 1).
            temperature: 0 takes the likeliest id.
        """
        if temperature == 0.0:
            return self.rows.best(self.logits_MR)
        num = rows_at_once(self.logits_MR)
        parts = zip(self.logits_MR.split(num), uniform_M.split(num), strict=True)
        return torch.cat([self._picked(logits, u, temperature) for logits, u in parts])

    def _picked(self, logits_MR: Tensor, uniform_M: Tensor, temperature: float) -> Tensor:
        logits_MR = logits_MR.double() / temperature
        largest_M = self.rows.largest(logits_MR.amax(dim=-1))
        reached_MR = (logits_MR - largest_M[:, None]).exp().cumsum(dim=-1)
        # Cumulative sums of earlier ranks come before this rank's.
        of_ranks = self.rows.gather(reached_MR[:, -1:])
        rank = self.rows.first // reached_MR.shape[-1]
        below_M, all_M = of_ranks[:, :rank].sum(dim=-1), of_ranks.sum(dim=-1)
        passed_MR = (below_M[:, None] + reached_MR) <= (uniform_M * all_M)[:, None]
        return self.total(passed_MR.double()).long()


def _finite(x: Tensor) -> Tensor:
    """Replace -inf by 0; no gradient passes there."""
    return x.masked_fill(x == -torch.inf, 0.0)
