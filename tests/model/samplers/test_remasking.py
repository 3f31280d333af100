"""ReMDM's sampler: its chain by enumeration, its marginals, and ancestral sampling at eta 0."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mask_sampling import counts_of, masks, states
from torch import Tensor

from model.samplers.ancestral import Ancestral
from model.samplers.remasking import Remasking
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

ChiSquare = Callable[[Tensor, Tensor], float]


def chain(joint: Any, alpha_t: float, alpha_s: float, sigma: float) -> Tensor:
    """p(z_s | z_t) over all texts with [MASK]s, ``[S, S]``, by the paper's formula."""
    length, mask = joint.length, joint.mask
    z_SL = torch.tensor(list(itertools.product(range(mask + 1), repeat=length)))
    everywhere = torch.ones_like(z_SL, dtype=torch.bool)
    prediction = joint.denoise(z_SL, None, everywhere).exp().view(len(z_SL), length, mask + 1)
    one_hot = torch.nn.functional.one_hot(z_SL, mask + 1).double()
    as_mask = torch.nn.functional.one_hot(torch.tensor(mask), mask + 1).double()
    revealed = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    of_masked = revealed * prediction + (1 - revealed) * as_mask
    of_visible = (1 - sigma) * one_hot + sigma * as_mask
    p_SLV = torch.where((z_SL == mask)[..., None], of_masked, of_visible)
    factors = [p_SLV[:, place][:, z_SL[:, place]] for place in range(length)]
    return torch.stack(factors).prod(dim=0)


def chains(
    joint: Any, steps: int, sigma_of: Callable[[float], float], schedule: Any
) -> list[Tensor]:
    """The chain of each step; sigma is given as a function of sigma_max."""
    alpha = schedule.exact().alpha(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).tolist()
    most = [1.0 if t <= 1 - s else (1 - s) / t for t, s in itertools.pairwise(alpha)]
    pairs = zip(itertools.pairwise(alpha), most, strict=True)
    return [chain(joint, t, s, sigma_of(sigma)) for (t, s), sigma in pairs]


def start_of(joint: Any) -> Tensor:
    """All masked, the last of the states."""
    law = torch.zeros((joint.mask + 1) ** joint.length, dtype=torch.float64)
    law[-1] = 1.0
    return law


def states_of(joint: Any, ids_BL: Tensor) -> Tensor:
    """The number of each text's state, ``[B]``."""
    return (ids_BL * (joint.mask + 1) ** torch.arange(joint.length - 1, -1, -1)).sum(dim=1)


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
@pytest.mark.parametrize(
    ("settings", "sigma_of"),
    [
        ({"eta": 0.2}, lambda most: min(0.2, most)),
        ({"eta": 1.0}, lambda most: most),
        ({"eta": 0.3, "schedule": "rescale"}, lambda most: 0.3 * most),
    ],
)
def test_samples_follow_the_chain_of_the_formula(
    two_tokens: Any,
    chi_square: ChiSquare,
    schedule: Any,
    settings: dict[str, Any],
    sigma_of: Callable[[float], float],
) -> None:
    start, law = masks(two_tokens, 6000), start_of(two_tokens)
    sampled, _ = states(two_tokens, start, Remasking(steps=4, **settings), schedule=schedule)
    texts = [states_of(two_tokens, ids) for ids in (start, *sampled)]
    steps = chains(two_tokens, 4, sigma_of, schedule)
    for before, after, step in zip(texts, texts[1:], steps, strict=False):
        moves = torch.bincount(before * 9 + after, minlength=81)
        expected = law[:, None] * step
        assert float(expected.sum()) == pytest.approx(1.0, abs=1e-12)
        assert chi_square(moves, expected.flatten()) < 4.5
        law = law @ step


def test_with_many_steps_the_joint_is_sampled(three_tokens: Any, chi_square: ChiSquare) -> None:
    law = start_of(three_tokens)
    for step in chains(three_tokens, 300, lambda most: min(0.01, most), LogLinear()):
        law = law @ step
    law = law.view(4, 4, 4)[:3, :3, :3]
    assert float((law / three_tokens.p - 1).abs().max()) < 0.03
    sampler = Remasking(steps=300, eta=0.01)
    sampled, _ = states(three_tokens, masks(three_tokens, 2000), sampler)
    assert chi_square(counts_of(three_tokens, sampled[-1]), three_tokens.probability) < 4.5
    changed = torch.stack([(a != b).sum() for a, b in itertools.pairwise(sampled)]).sum()
    assert int(changed) > 2 * 3 * 2000  # tokens are revised, and more than once


@pytest.mark.parametrize("settings", [{"eta": 0.3}, {"eta": 0.6, "schedule": "rescale"}])
@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
def test_the_share_of_masks_is_that_of_the_forward_process(
    three_tokens: Any, settings: dict[str, Any], schedule: Any
) -> None:
    """Theorem 3.1: marginals do not depend on sigma."""
    rows, steps = 3000, 8
    sampler = Remasking(steps=steps, **settings)
    sampled, _ = states(three_tokens, masks(three_tokens, rows), sampler, schedule=schedule)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:]
    for ids, alpha in zip(sampled, schedule.exact().alpha(times).tolist(), strict=True):
        share = float((ids == three_tokens.mask).double().mean())
        assert abs(share - (1 - alpha)) <= 4.5 * (alpha * (1 - alpha) / (3 * rows)) ** 0.5


@pytest.mark.parametrize("schedule", ["cap", "rescale"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_without_remasking_it_is_ancestral_sampling(
    three_tokens: Any, steps: int, schedule: Any
) -> None:
    start = masks(three_tokens, 50)
    plain, evaluations = states(three_tokens, start, Ancestral(steps=steps))
    found, asked = states(
        three_tokens, start, Remasking(steps=steps, eta=0.0, schedule=schedule, temperature=1.0)
    )
    assert asked == evaluations
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_given_tokens_are_never_masked(
    three_tokens: Any, chi_square: ChiSquare, steps: int
) -> None:
    start = masks(three_tokens, 300)
    start[:, 1] = 2
    sampled, _ = states(three_tokens, start, Remasking(steps=steps, eta=1.0))
    assert all((ids[:, 1] == 2).all() for ids in sampled)
    assert not (sampled[-1] == three_tokens.mask).any()
