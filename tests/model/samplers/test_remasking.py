"""ReMDM's sampler: its chain by enumeration, its marginals, what it masks again, and when."""

import itertools
import math
from collections import defaultdict
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
from model.verification.joint import Joint

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


PAPER = {"remask_from": 0.55, "remask_until": 0.05, "hold_alpha": 0.9}
"""ReMDM-loop on OpenWebText."""


def test_alpha_stands_still_in_a_loop() -> None:
    """Steps from t to s: as by the paper before and after it, and at 0.9 in between."""
    times = torch.tensor([1.0, 0.775, 0.55, 0.3, 0.05, 0.025, 0.0], dtype=torch.float64)
    for schedule in (LogLinear(), Cosine()):
        exact = schedule.exact()
        levels = Remasking(**PAPER)._levels(times, exact)
        alpha = exact.alpha(levels)
        torch.testing.assert_close(alpha[2:5], torch.full((3,), 0.9, dtype=torch.float64))
        assert (float(alpha[0]), float(alpha[-1])) == pytest.approx((0.0, 1.0), abs=1e-12)
        assert float(levels[1]) == pytest.approx((1 + float(levels[2])) / 2)
    # Log-linear: (1 - t) 0.9 / (1 - t_on) before, 1 - t 0.1 / t_off after.
    alpha = LogLinear().exact().alpha(Remasking(**PAPER)._levels(times, LogLinear().exact()))
    expected = [0.0, 0.225 * 2, 0.9, 0.9, 0.9, 0.95, 1.0]
    torch.testing.assert_close(alpha, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    "settings",
    [{"remask_from": 0.6}, {"remask_until": 0.4}, {"remask_from": 0.7, "remask_until": 0.2}, PAPER],
)
def test_tokens_are_masked_again_between_two_times(
    three_tokens: Any, settings: dict[str, Any]
) -> None:
    rows, steps = 1500, 20
    sampler = Remasking(steps=steps, eta=0.4, **settings)
    start = masks(three_tokens, rows)
    sampled, _ = states(three_tokens, start, sampler)
    exact = LogLinear().exact()
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    shares = exact.alpha(sampler._levels(times, exact)).tolist()
    for number, (before, after) in enumerate(itertools.pairwise([start, *sampled])):
        gone = (before != three_tokens.mask) & (after == three_tokens.mask)
        inside = sampler.remask_until < float(times[number]) <= sampler.remask_from
        assert bool(gone.any()) == (inside and 0 < number < steps - 1)
        share, alpha = float((after != three_tokens.mask).double().mean()), shares[number + 1]
        assert abs(share - alpha) <= 4.5 * (alpha * (1 - alpha) / (3 * rows)) ** 0.5 + 1e-12


def test_the_least_likely_tokens_are_masked_again_most() -> None:
    p_BL = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.9, 0.2], [0.5, 0.5, 0.5, 0.5]])
    visible_BL = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]).bool()
    shares = Remasking(by_confidence=True)._shares(p_BL, visible_BL)
    weight = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64).neg().exp()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, :3], expected[1, :2], expected[2, 3] = weight / weight.sum(), 0.5, 1.0
    torch.testing.assert_close(shares, expected, rtol=1e-6, atol=1e-8)


Remembered = tuple[tuple[int, float], ...]
"""A text of (id, probability with which it was last drawn), 0 at [MASK]s."""


def number_of(joint: Any, state: Remembered) -> int:
    """The number of the text (:func:`states_of`)."""
    return int(states_of(joint, torch.tensor([[token for token, _ in state]])))


def moved(joint: Any, state: Remembered, alpha_t: float, alpha_s: float, sigma: float) -> Any:
    """ReMDM-conf's step from a state: the next ones and their probabilities."""
    ids = [token for token, _ in state]
    everywhere = torch.ones(1, len(ids), dtype=torch.bool)
    p_LV = joint.denoise(torch.tensor([ids]), None, everywhere).exp().tolist()
    total = sum(math.exp(-p) for token, p in state if token != joint.mask)
    revealed = (alpha_s - alpha_t) / (1 - alpha_t)
    ways = []
    for place, (token, p) in enumerate(state):
        if token == joint.mask:
            drawn = [((x, p_LV[place][x]), revealed * p_LV[place][x]) for x in range(joint.vocab)]
            ways.append([((joint.mask, 0.0), 1 - revealed), *drawn])
        else:
            again = sigma * math.exp(-p) / total
            ways.append([((joint.mask, 0.0), again), ((token, p), 1 - again)])
    for chosen in itertools.product(*ways):
        yield tuple(x for x, _ in chosen), math.prod(p for _, p in chosen)


@pytest.mark.parametrize(
    ("settings", "sigma_of"),
    [
        ({"eta": 1.0, "schedule": "rescale"}, lambda most: most),
        ({"eta": 0.6}, lambda most: min(0.6, most)),
    ],
)
def test_by_confidence_samples_follow_the_chain_of_the_formula(
    chi_square: ChiSquare, settings: dict[str, Any], sigma_of: Callable[[float], float]
) -> None:
    joint = Joint(torch.tensor([[0.72, 0.08], [0.02, 0.18]], dtype=torch.float64))
    steps, start = 6, masks(joint, 20_000)
    law: dict[Remembered, float] = {((joint.mask, 0.0),) * 2: 1.0}
    sampler = Remasking(steps=steps, by_confidence=True, **settings)
    sampled, _ = states(joint, start, sampler)
    texts = [states_of(joint, ids) for ids in (start, *sampled)]
    alpha = LogLinear().exact().alpha(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    pairs = zip(itertools.pairwise(texts), itertools.pairwise(alpha.tolist()), strict=True)
    for (before, after), (t, s) in pairs:
        sigma = sigma_of(1.0 if t <= 1 - s else (1 - s) / t)
        expected, following = torch.zeros(9, 9, dtype=torch.float64), defaultdict[Any, float](float)
        for state, p in law.items():
            for new, q in moved(joint, state, t, s, sigma):
                following[new] += p * q
                expected[number_of(joint, state), number_of(joint, new)] += p * q
        law = following
        assert float(expected.sum()) == pytest.approx(1.0, abs=1e-9)
        assert (
            chi_square(torch.bincount(before * 9 + after, minlength=81), expected.flatten()) < 4.5
        )


def test_given_tokens_have_no_share_of_what_is_masked_again(two_tokens: Any) -> None:
    """The only other token is masked again as without confidence: with probability sigma."""
    rows, start = 2000, masks(two_tokens, 2000)
    start[:, 1] = 1
    sampled, _ = states(two_tokens, start, Remasking(steps=8, eta=1.0, by_confidence=True))
    assert all((ids[:, 1] == 1).all() for ids in sampled)
    before, after = (ids[:, 0] != two_tokens.mask for ids in sampled[5:7])  # alpha 6/8, then 7/8
    share, sigma = float((before & ~after).sum() / before.sum()), (1 / 8) / (6 / 8)
    assert abs(share - sigma) < 4.5 * (sigma * (1 - sigma) / (0.7 * rows)) ** 0.5


@pytest.mark.parametrize("settings", [{}, PAPER])
def test_by_confidence_each_text_is_on_its_own(three_tokens: Any, settings: Any) -> None:
    start, kept = masks(three_tokens, 30), torch.tensor([17, 3, 29, 4, 0])
    start[::3, 1] = 2
    sampler = Remasking(steps=9, eta=1.0, by_confidence=True, **settings)
    whole, _ = states(three_tokens, start, sampler)
    part, _ = states(three_tokens, start[kept], sampler, position_B=kept)
    assert torch.equal(whole[-1][kept], part[-1])
    assert not (whole[-1] == three_tokens.mask).any()
