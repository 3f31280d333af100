"""Uniform process: a token is kept with probability alpha_t, else any of V ids.

Austin et al. 2021 (D3PM), appendix A.2; in continuous time Schiff et al. 2024 (UDLM),
section 4. The V ids are those that can be predicted, all but [MASK]. A draw may equal the
token itself: with u = (1 - alpha) / V

    q(x_t = j | x_0) = alpha [j = x_0] + u.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.categorical import Categorical
from model.networks.config import ModelConfig

EDGE = 1e-12
"""Least distance of alpha from 0 and 1 in the NELBO, whose logarithms diverge there."""


def num_ids(model: ModelConfig) -> int:
    """V, the number of ids for noise and predictions: the tokenizer's without [MASK]."""
    return model.vocab_size - int(model.mask < model.vocab_size)


def random_ids(uniform: Tensor, model: ModelConfig) -> Tensor:
    """Uniformly distributed ids, int64, from uniforms in (0, 1)."""
    num = num_ids(model)
    index = (uniform * num).long().clamp(0, num - 1)
    return index + (index >= model.mask).long()


def corrupt(ids_BL: Tensor, alpha_BK: Tensor, uniform_BL: Tensor, model: ModelConfig) -> Tensor:
    """Sample x_t: a uniform draw below alpha keeps the token, one above it selects an id."""
    share_BL = (uniform_BL - alpha_BK) / (1 - alpha_BK).clamp(min=EDGE)
    return torch.where(uniform_BL < alpha_BK, ids_BL, random_ids(share_BL, model))


def bound_density(
    prediction: Categorical, clean_M: Tensor, noisy_M: Tensor, alpha_M: Tensor
) -> Tensor:
    """The NELBO's integrand over alpha at each position, ``[M]`` float32 (UDLM, eq. 18).

    With q = q(. | x_0), p = alpha x_theta + u and r = q_i / p_i at the noisy id i it is

        (KL(q || p) + r - 1 - log r) / (alpha V q_i),

    the paper's integrand divided by -alpha'. Both summands are zero at x_theta = x_0, and
    never negative. With c = alpha / u, s_j = log(p_j / u) = log(1 + c x_theta_j) and
    a = log(q_x / p_x) = log(1 + c (1 - x_theta_x) / (1 + c x_theta_x)) at the clean id x,

        KL(q || p) = (alpha + u) a - u sum of s_j over j other than x,

    which has no cancellation of large terms for alpha near 0 or near 1. Sums over the vocabulary
    are in float32, per-position values in float64.

    Args:
        prediction: x_theta, -inf exactly at the ids that are not among the V.
        clean_M, noisy_M: x_0 and x_t, int64.
        alpha_M: float64.
    """
    num = prediction.total((prediction.logits_MR[:1] > -torch.inf).double())
    alpha_M = alpha_M.double().clamp(EDGE, 1 - EDGE)
    other_M = (1 - alpha_M) / num
    clean_q_M, ratio_M = alpha_M + other_M, alpha_M / other_M
    log_p_MR = prediction.log_p()
    gain_MR = F.softplus(log_p_MR + ratio_M.log().float()[:, None])
    clean_gain_M = prediction.at(gain_MR, clean_M).double()
    missing_M = -torch.expm1(prediction.at(log_p_MR, clean_M).double())
    short_M = torch.log1p(ratio_M * missing_M * torch.exp(-clean_gain_M))
    kl_M = clean_q_M * short_M - other_M * (prediction.total(gain_MR).double() - clean_gain_M)
    kept_M = noisy_M == clean_M
    log_r_M = torch.where(kept_M, short_M, -prediction.at(gain_MR, noisy_M).double())
    noisy_q_M = torch.where(kept_M, clean_q_M, other_M)
    return ((kl_M + torch.expm1(log_r_M) - log_r_M) / (alpha_M * num * noisy_q_M)).float()


def posterior(
    x_theta: Categorical, noisy_M: Tensor, alpha_s: Tensor, alpha_t: Tensor, model: ModelConfig
) -> Categorical:
    """Posterior q(x_s | x_t, x_theta) for s < t, with a prediction for x_0 (UDLM, section 4).

    With A = alpha_t / alpha_s it is proportional to q(x_t | x_s = j) q(x_s = j | x_theta),

        (A [j = x_t] + (1 - A) / V) (alpha_s x_theta_j + u_s),

    the exponentials of the logits returned, which sum to q(x_t | x_theta).

    Args:
        alpha_s, alpha_t: float64 scalars.
    """
    num, kept = num_ids(model), alpha_t / alpha_s
    moved, other = (1 - kept) / num, (1 - alpha_s) / num
    same_MR = x_theta.one_hot(noisy_M) > 0
    log_kernel_MR = torch.where(same_MR, (kept + moved).log().float(), moved.log().float())
    log_clean_MR = x_theta.log_p() + alpha_s.log().float()
    logits_MR = log_kernel_MR + torch.logaddexp(log_clean_MR, other.log().float())
    first, size = x_theta.rows.first, logits_MR.shape[-1]
    excluded_R = model.excluded_rows[first : first + size].to(logits_MR.device)
    return Categorical(logits_MR.masked_fill(excluded_R, -torch.inf), x_theta.rows)
