"""Helpers of the oracles: batches, enumerated noise, quadrature, and losses per text."""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.categorical import Categorical
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import Batch, Noisy
from model.prediction import Prediction
from model.verification.joint import Joint
from model.verification.scripted import Scripted


def batch_of(tokens_BL: Tensor) -> Batch:
    """A batch of texts without padding, at stream positions from 0 on."""
    return {
        "tokens": tokens_BL,
        "valid": torch.ones_like(tokens_BL, dtype=torch.bool),
        "position": torch.arange(len(tokens_BL)),
    }


def uniform_logits(noisy: Noisy, model: ModelConfig) -> Tensor:
    """Uniform logits ``[M, ids]`` at the predicted positions, -inf for [MASK]."""
    logits_MR = torch.zeros(int(noisy.predict_mask_BL.sum()), model.num_ids)
    logits_MR[:, model.mask] = -torch.inf
    return logits_MR


def predicted(logits_MR: Tensor) -> Prediction:
    """A network's prediction with these logits."""
    return Prediction(logits=Categorical(logits_MR))


def row_losses(
    losses: Callable[[Prediction, Noisy], Tensor], noisy: Noisy, logits_MR: Tensor
) -> Tensor:
    """The sum of an objective's losses over the positions of each sample, ``[B]`` float64."""
    losses_M = losses(predicted(logits_MR), noisy)
    zeros_B = torch.zeros(len(noisy.ids_BL), dtype=torch.float64)
    return zeros_B.index_add(0, noisy.predict_mask_BL.nonzero()[:, 0], losses_M.double())


def legendre(num: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre quadrature on (0, 1): points and weights, ``[num]`` float64 each."""
    node, weight = np.polynomial.legendre.leggauss(num)
    node_T, weight_T = (torch.tensor(x.tolist(), dtype=torch.float64) for x in (node, weight))
    return (node_T + 1) / 2, weight_T / 2


def times_and_masks(length: int, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`with_masks` of the quadrature points of time."""
    return with_masks(*legendre(nodes), length)


def with_masks(time_T: Tensor, weight_T: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Enumerate times and mask patterns: times ``[W]``, uniforms ``[W, L]``, weights ``[W]``.

    A uniform is 1 where to mask and 0 elsewhere.
    """
    pattern_ZL = torch.tensor(list(itertools.product([0.0, 1.0], repeat=length))).double()
    num = len(pattern_ZL)
    return (
        time_T.repeat_interleave(num),
        pattern_ZL.repeat(len(time_T), 1),
        weight_T.repeat_interleave(num),
    )


def mask_probability(alpha_W: Tensor, pattern_WL: Tensor) -> Tensor:
    """Probability ``[W]`` of each mask pattern, if a token is kept with probability alpha."""
    alpha_W1 = alpha_W[:, None]
    return torch.where(pattern_WL > 0, 1 - alpha_W1, alpha_W1).prod(dim=1)


def every_outcome(joint: Joint, time_W: Tensor, uniform_WL: Tensor) -> tuple[Batch, Draws]:
    """Each of N outcomes under each of W cases of the noise, ``[N W, L]``; one time per case."""
    num = len(joint.outcomes)
    batch = batch_of(joint.outcomes.repeat_interleave(len(time_W), dim=0))
    time_BN = time_W.repeat(num)[:, None].expand(-1, joint.length)
    return batch, Scripted(time_B1=time_BN, uniform_BL=uniform_WL.repeat(num, 1))


def every_order(joint: Joint, times: int) -> tuple[Batch, Draws]:
    """:func:`every_outcome` under every order of masking, at evenly spaced times.

    Args:
        times: number of times; with one per position, every number of masked positions occurs.
    """
    order_PL = torch.tensor(list(itertools.permutations(range(joint.length))))
    time_K = (torch.arange(times).double() + 0.5) / times
    uniform_WL = ((order_PL + 0.5) / joint.length).double().repeat(times, 1)
    return every_outcome(joint, time_K.repeat_interleave(len(order_PL)), uniform_WL)
