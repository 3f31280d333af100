"""Estimators of the bound of masked diffusion: which of a text's tokens are masked, at what weight.

With n hidden tokens, L(S) the sum of -log p over a set S of them that is masked, and the share t
masked, the NELBO (Sahoo et al. 2024, eq. 10) is a mean over times, or over numbers of masked tokens
(Nie et al. 2025, eq. 14; with k for their l):

    E over t ~ U(0, 1]  (1/t) E L(S), each token in S with probability t
  = E over k ~ U{1..n}  (n/k) E L(S), S any k of the n tokens, equally likely

since the integral of (1/t) Binomial(k; n, t) over t is 1/k. So all estimators here have the same
mean whatever the network, and differ in variance:

- ``exact-k`` draws k first, stratified over the corruptions, and t given k after it.
- ``stratified-time`` draws t first, stratified (the published code of MDLM). A text is masked in
  few places at a large weight 1/t: the variance is infinite.
- ``fixed-l`` draws k first, for each text by itself: the distribution of ``exact-k`` for one text,
  without the stratification.
"""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from model.draws import Draws

Estimator = Literal["exact-k", "stratified-time", "fixed-l"]
"""Names of the estimators."""

ESTIMATORS: tuple[str, ...] = get_args(Estimator)

Mask = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def bound_times(estimator: Estimator, draws: Draws, position_B: Tensor, num: int = 1) -> Tensor:
    """Uniforms ``[B, num]`` in (0, 1) that determine how much is masked: stratified, or not."""
    if estimator == "fixed-l":
        return draws.uniform("time", position_B, num)
    return draws.times(position_B, num=num)


def bound_mask(
    estimator: Estimator, hidden_BL: Tensor, time_B1: Tensor, uniform_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask some of the hidden tokens of each row.

    Args:
        time_B1: of :func:`bound_times`.
        uniform_BL: uniform in (0, 1), which determine the tokens.

    Returns:
        The mask ``[B, L]``, the rate t ``[B, 1]`` and the weight ``[B, 1]`` of its losses.
    """
    return _MASKS[estimator](hidden_BL, time_B1, uniform_BL)


def some_of(
    hidden_BL: Tensor, time_B1: Tensor, uniform_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask k of the n hidden tokens of each row, k uniform on 1..n, with weight n / k.

    The mass (1/t) Binomial(k; n, t) is (1/k) Beta(t; k, n-k+1). So t given k is the k-th smallest
    of n uniforms, which also selects the masked tokens. The variance is finite.
    """
    num_B1 = hidden_BL.sum(dim=1, keepdim=True)
    masked_B1 = (time_B1 * num_B1).long() + 1
    masked_B1 = torch.minimum(masked_B1, num_B1)
    uniform_BL = uniform_BL.masked_fill(~hidden_BL, 2.0)
    sorted_BL = uniform_BL.sort(dim=1).values
    t_B1 = sorted_BL.gather(1, (masked_B1 - 1).clamp(min=0)).clamp(max=1.0)
    return (uniform_BL <= t_B1) & hidden_BL, t_B1, num_B1 / masked_B1.clamp(min=1)


def each_at_time(
    hidden_BL: Tensor, time_B1: Tensor, uniform_BL: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mask each hidden token with probability t, with weight 1 / t, over all t in (0, 1)."""
    return (uniform_BL < time_B1) & hidden_BL, time_B1, 1 / time_B1


_MASKS: Mapping[Estimator, Mask] = {
    "exact-k": some_of,
    "stratified-time": each_at_time,
    "fixed-l": some_of,
}
