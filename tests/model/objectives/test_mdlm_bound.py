"""MDLM held out: its bound against known likelihoods, and the draws of its evaluation."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from masking import (
    MODEL,
    SCHEDULES,
    VOCAB,
    batch,
    constant,
    draws,
    row_losses,
    senseless,
    some_tokens,
)
from torch import Tensor

from model.objectives import Noisy
from model.objectives.mdlm import Mdlm
from model.processes.absorbing import bound_weight
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

ChiSquare = Callable[[Tensor, Tensor], float]

FLOAT32 = 1e-6
"""Prediction.log_prob computes in float32, so no identity through it holds more closely."""


def noisy_of(tokens: Tensor, where: Tensor, weight: Tensor, mask: int) -> Noisy:
    return Noisy(
        ids_BL=torch.where(where, mask, tokens),
        level_BK=torch.full((len(tokens), 1), 0.5),
        predict_mask_BL=where,
        position_B=torch.arange(len(tokens)),
        target_BL=tokens,
        weight_BK=weight,
        over_BL=torch.ones_like(where),
    )


def subsets(num: int, size: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(num), size))


def enumerated_bound(joint: Any, denoise: Callable[..., Tensor], x_L: Tensor, free: list[int]):
    """Mean over k = 1..n and over the masks of k free tokens of the loss with weight n / k."""
    per_size = []
    for size in range(1, len(free) + 1):
        masks = subsets(len(free), size)
        where = torch.zeros(len(masks), len(x_L), dtype=torch.bool)
        for row, chosen in enumerate(masks):
            where[row, [free[i] for i in chosen]] = True
        weight = torch.full((len(masks), 1), len(free) / size, dtype=torch.float64)
        noisy = noisy_of(x_L.expand(len(masks), -1), where, weight, joint.mask)
        per_size.append(row_losses(denoise, noisy).mean())
    return torch.stack(per_size).mean()


def test_the_bound_with_the_true_conditionals_is_the_likelihood_of_every_sequence(
    three_tokens: Any, two_tokens: Any
) -> None:
    for joint in (three_tokens, two_tokens):
        free = list(range(joint.length))
        for x_L, p in zip(joint.outcomes, joint.p.flatten(), strict=True):
            bound = enumerated_bound(joint, joint.denoise, x_L, free)
            assert bound == pytest.approx(-math.log(p), rel=FLOAT32)


def test_the_bound_of_a_wrong_network_is_loose_on_average(three_tokens: Any) -> None:
    bounds = [
        enumerated_bound(three_tokens, senseless(three_tokens), x_L, [0, 1, 2])
        for x_L in three_tokens.outcomes
    ]
    p = three_tokens.p.flatten()
    entropy = -(p * p.log()).sum()
    assert (p * torch.stack(bounds)).sum() > entropy + 0.1


def test_the_bound_of_the_free_tokens_is_their_likelihood_given_the_others(
    three_tokens: Any,
) -> None:
    for free in ([0], [1, 2], [0, 2]):
        for x_L in three_tokens.outcomes[::4]:
            context = x_L.clone()
            context[free] = three_tokens.mask
            both = three_tokens.masked_log_prob(torch.stack((x_L, context)))
            bound = enumerated_bound(three_tokens, three_tokens.denoise, x_L, free)
            assert bound == pytest.approx(float(both[1] - both[0]), rel=FLOAT32)


def test_the_published_numbers_of_two_tokens(two_tokens: Any) -> None:
    outcomes, p = two_tokens.outcomes, two_tokens.p.flatten()
    means = []
    for size in (1, 2):
        masks = [torch.tensor([i in chosen for i in range(2)]) for chosen in subsets(2, size)]
        losses = [
            row_losses(
                two_tokens.denoise,
                noisy_of(outcomes, mask.expand(4, 2), torch.ones(4, 1), two_tokens.mask),
            )
            for mask in masks
        ]
        means.append(torch.stack(losses).mean(0))
    g_1, g_2 = means
    assert g_1.tolist() == pytest.approx(
        [0.314304330, 1.497866137, 1.007451510, 0.399253848], rel=FLOAT32
    )
    assert g_2.tolist() == pytest.approx(
        [1.203972804, 1.609437912, 1.203972804, 1.609437912], rel=FLOAT32
    )
    assert (p * (g_1 + g_2 / 2)).sum() == pytest.approx(1.2798542258, rel=FLOAT32)


def test_the_integral_over_time_is_the_same_under_every_schedule(three_tokens: Any) -> None:
    node, node_weight = torch.linalg.eigh(
        torch.diag(k := torch.arange(1, 64).double() / (4 * torch.arange(1, 64) ** 2 - 1).sqrt(), 1)
        + torch.diag(k, -1)
    )
    time_T = (node + 1) / 2
    weight_T = node_weight[0] ** 2
    denoise = senseless(three_tokens)
    x_L = torch.tensor([2, 0, 1])
    where = torch.tensor(list(itertools.product([False, True], repeat=3)))
    masked = where.sum(1)
    expected = enumerated_bound(three_tokens, denoise, x_L, [0, 1, 2])
    for schedule in SCHEDULES:
        exact = schedule.exact()
        alpha_T, dalpha_T = exact.alpha(time_T), exact.dalpha(time_T)
        integral = torch.zeros((), dtype=torch.float64)
        for t in range(len(time_T)):
            probability = alpha_T[t] ** (3 - masked) * (1 - alpha_T[t]) ** masked
            weight = bound_weight(alpha_T[t], dalpha_T[t]).expand(8, 1)
            noisy = noisy_of(x_L.expand(8, 3), where, weight, three_tokens.mask)
            integral += weight_T[t] * (probability * row_losses(denoise, noisy)).sum()
        assert integral == pytest.approx(float(expected), rel=1e-5)


def free_pattern(num: int, length: int) -> list[bool]:
    return [(17 * i) % length < num for i in range(length)]


@pytest.mark.parametrize("num", [1, 2, 4, 5])
def test_the_evaluation_masks_a_uniform_subset_of_uniform_size(
    num: int, chi_square: ChiSquare
) -> None:
    rows, length = 3000, 5
    free = torch.tensor(free_pattern(num, length)).expand(rows, length)
    assert free[0].sum() == num
    tokens = some_tokens(rows, length)
    noisy = Mdlm().bound_corrupt(batch(tokens) | {"free": free}, draws(rows), MODEL)
    size = noisy.predict_mask_BL.sum(1)
    assert torch.bincount(size, minlength=num + 1).tolist() == [0] + [rows // num] * num
    assert not (noisy.predict_mask_BL & ~free).any()
    code = (noisy.predict_mask_BL * 2 ** torch.arange(length)).sum(1)
    for k in range(1, num + 1):
        chosen = torch.bincount(code[size == k], minlength=2**length)
        chosen = chosen[chosen > 0]
        assert len(chosen) == math.comb(num, k)
        if len(chosen) > 1:
            assert chi_square(chosen, torch.ones(len(chosen)) / len(chosen)) < 4.5


def test_evaluation_rows_of_different_free_counts_do_not_mix() -> None:
    rows, length = 700, 6
    tokens = some_tokens(rows, length)
    num = torch.arange(rows) % (length + 1)
    free = torch.stack([torch.tensor(free_pattern(int(n), length)) for n in num])
    assert torch.equal(free.sum(1), num)
    noisy = Mdlm().bound_corrupt(batch(tokens) | {"free": free}, draws(rows), MODEL)
    size = noisy.predict_mask_BL.sum(1)
    assert ((size >= 1) == (num >= 1)).all()
    assert not (noisy.predict_mask_BL & ~free).any()
    assert torch.equal(noisy.ids_BL, torch.where(noisy.predict_mask_BL, MODEL.mask, tokens))
    assert torch.equal(noisy.target_BL, tokens)
    assert noisy.count() == num.sum()
    assert noisy.weight_BK.isfinite().all()
    assert noisy.level_BK.isfinite().all()
    some = num > 0
    torch.testing.assert_close(noisy.weight_BK[some, 0], (num / size)[some])
    row = 5
    alone = {key: value[row : row + 1] for key, value in batch(tokens).items()}
    single = Mdlm().bound_corrupt(alone | {"free": free[row : row + 1]}, draws(rows), MODEL)
    assert torch.equal(single.ids_BL, noisy.ids_BL[row : row + 1])
    assert torch.equal(single.level_BK, noisy.level_BK[row : row + 1])
    assert torch.equal(single.weight_BK, noisy.weight_BK[row : row + 1])


def test_an_evaluation_without_free_tokens_scores_nothing() -> None:
    tokens = some_tokens(3, 4)
    free = torch.zeros(3, 4, dtype=torch.bool)
    noisy = Mdlm().bound_corrupt(batch(tokens) | {"free": free}, draws(3), MODEL)
    assert noisy.count() == 0
    assert torch.equal(noisy.ids_BL, tokens)
    assert row_losses(constant(torch.zeros(VOCAB)), noisy).tolist() == [0, 0, 0]


@pytest.mark.parametrize("schedule", [*SCHEDULES, LogLinear(eps=0.3), Cosine(eps=0.3)], ids=repr)
def test_the_level_of_an_evaluation_is_a_beta_order_statistic(schedule: Any) -> None:
    rows, length, num = 4000, 6, 4
    free = torch.tensor(free_pattern(num, length)).expand(rows, length)
    noisy = Mdlm(schedule=schedule).bound_corrupt(
        batch(some_tokens(rows, length)) | {"free": free}, draws(rows), MODEL
    )
    masked_share = 1 - schedule.exact().alpha(noisy.level_BK[:, 0].double())
    size = noisy.predict_mask_BL.sum(1)
    for k in range(1, num + 1):
        share = masked_share[size == k]
        mean = k / (num + 1)
        variance = mean * (1 - mean) / (num + 2)
        assert abs(share.mean() - mean) < 4 * (variance / len(share)) ** 0.5
        assert share.var() == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("free", [[True] * 3, [True, False, True]], ids=["whole", "prompted"])
def test_the_sampled_bound_converges_to_the_likelihood(
    three_tokens: Any, schedule: Any, free: list[bool]
) -> None:
    rows = 3000
    for x_L in three_tokens.outcomes[::7]:
        tokens = x_L.expand(rows, 3)
        free_BL = torch.tensor(free).expand(rows, 3)
        noisy = Mdlm(schedule=schedule).bound_corrupt(
            batch(tokens) | {"free": free_BL}, draws(rows), three_tokens.config
        )
        losses = row_losses(three_tokens.denoise, noisy)
        context = torch.where(torch.tensor(free), three_tokens.mask, x_L)
        both = three_tokens.masked_log_prob(torch.stack((x_L, context)))
        error = float(losses.std()) / rows**0.5
        assert abs(losses.mean() - (both[1] - both[0])) < 4 * error
        assert error < 0.04
