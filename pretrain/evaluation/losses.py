"""Held-out losses by term, for objectives without a likelihood bound."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.objectives import LOSS, Noisy, Objective
from model.prediction import Prediction
from pretrain.evaluation.evaluator import Evaluator


class Batches(Protocol):
    """Samples by position, such as :class:`data_pipeline.loader.Stream`."""

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """The samples at these positions."""


@dataclass(frozen=True, kw_only=True)
class HeldOutLosses:
    """Losses of held-out samples by term, of one share or of all, in float64.

    Args:
        sums_T: sum of each term.
        counts_T: number of values that each term is a mean over.
        samples_NT: sum of each term over one sample.
        tokens_N: tokens of each sample.
    """

    sums_T: Tensor
    counts_T: Tensor
    samples_NT: Tensor
    tokens_N: Tensor

    def total(self, total: Callable[[Tensor], Tensor]) -> "HeldOutLosses":
        """Sum over all shares, by a function that sums one tensor."""
        return HeldOutLosses(**{name: total(value).cpu() for name, value in vars(self).items()})

    def losses(self, objective: Objective) -> dict[str, float]:
        """``loss``, the weighted sum of the terms; where there are several, each by its name."""
        means_T = self.sums_T / self.counts_T.clamp(min=1)
        weights = objective.terms.values()
        found = {LOSS: sum(w * m for w, m in zip(weights, means_T.tolist(), strict=True))}
        if len(means_T) > 1:
            found |= dict(zip(objective.terms, means_T.tolist(), strict=True))
        return found

    def by_sample(self, objective: Objective) -> Tensor:
        """``[N, 2]``: loss times tokens of each sample, and its tokens.

        The first column's sum divided by the second's is the loss.
        """
        weight_T = torch.tensor(list(objective.terms.values()), dtype=torch.float64)
        scale_T = weight_T * (self.tokens_N.sum() / self.counts_T.clamp(min=1))
        return torch.stack([self.samples_NT @ scale_T, self.tokens_N], dim=1)


def mean_losses(evaluator: Evaluator, stream: Batches, *, num: int) -> HeldOutLosses:
    """Losses of the first ``num`` held-out samples, computed as in training.

    For objectives without a bound. Times are even whatever they are in training, so that
    numbers of different runs can be compared. The results of all shares have to be summed.
    """
    objective, state = evaluator.objective, evaluator.state
    draws = evaluator.draws(num)
    names = list(objective.terms)
    sums_T, counts_T = torch.zeros(2, len(names), dtype=torch.float64)
    samples_NT = torch.zeros(num, len(names), dtype=torch.float64)
    tokens_N = torch.zeros(num, dtype=torch.float64)
    firsts = range(0, num, evaluator.batch)
    for turn, first, mine in evaluator.share.batches(firsts):
        positions = np.arange(first, min(num, first + evaluator.batch))
        batch = stream.batch(positions)
        samples = {key: value.to(evaluator.device) for key, value in batch.items()}
        noisy = objective.corrupt(samples, draws, evaluator.model, state)
        noisy = objective.refine(noisy, evaluator.ask, draws, state)
        losses = evaluator.ask(noisy, partial(_all_terms, objective, noisy=noisy))
        if mine:
            # Views of one sample are len(positions) rows apart.
            row_M = noisy.predict_mask_BL.nonzero()[:, 0].cpu() % len(positions)
            row_B = torch.arange(len(noisy.ids_BL)) % len(positions)
            for term, (name, loss) in enumerate(zip(names, losses, strict=True)):
                own = loss.double().cpu()
                sums_T[term] += own.sum()
                counts_T[term] += noisy.count(name).double().cpu()
                row = row_M if own.dim() == 1 else row_B
                samples_NT[:, term].index_add_(0, first + row, own.flatten())
            tokens_N[first : first + len(positions)] = samples["valid"].sum(dim=1).double().cpu()
        evaluator.on_batch(len(turn) * evaluator.batch)
    return HeldOutLosses(sums_T=sums_T, counts_T=counts_T, samples_NT=samples_NT, tokens_N=tokens_N)


def _all_terms(objective: Objective, prediction: Prediction, noisy: Noisy) -> tuple[Tensor, ...]:
    """By term, ``[M]`` or ``[B, 1]``."""
    losses = objective.losses(prediction, noisy)
    return tuple(losses[name] for name in objective.terms)
