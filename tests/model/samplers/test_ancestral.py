"""Ancestral sampling against joints that are known exactly."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mask_sampling import counts_of, masks, states
from torch import Tensor

from model.query import Query
from model.samplers.ancestral import Ancestral
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from model.verification.joint import Joint

ChiSquare = Callable[[Tensor, Tensor], float]


def independent(joint: Any) -> Tensor:
    first, second = joint.p.sum(1), joint.p.sum(0)
    return torch.outer(first, second).flatten()


@pytest.mark.parametrize(
    ("steps", "schedule", "together"),
    [
        (1, LogLinear(), 1.0),
        (2, LogLinear(), 0.5),
        (2, Cosine(), 0.5 + (1 - 0.5**0.5) ** 2),
        (4, LogLinear(eps=0.3), 0.25),
        (50, LogLinear(), 0.02),
    ],
)
def test_samples_follow_the_joint_unless_tokens_are_revealed_together(
    two_tokens: Any, chi_square: ChiSquare, steps: int, schedule: Any, together: float
) -> None:
    rows = 4000
    sampled, _ = states(
        two_tokens, masks(two_tokens, rows), Ancestral(steps=steps), schedule=schedule
    )
    law = together * independent(two_tokens) + (1 - together) * two_tokens.p.flatten()
    assert chi_square(counts_of(two_tokens, sampled[-1]), law) < 4.5
    both = torch.stack([(ids != two_tokens.mask).all(1) for ids in sampled])
    none = torch.stack([(ids == two_tokens.mask).all(1) for ids in sampled])
    jumped = both[0] | (both[1:] & none[:-1]).any(0)
    spread = (together * (1 - together) / rows) ** 0.5
    assert abs(jumped.double().mean() - together) <= 4 * spread


def test_the_joint_of_three_tokens_is_sampled(three_tokens: Any, chi_square: ChiSquare) -> None:
    sampled, _ = states(three_tokens, masks(three_tokens, 3000), Ancestral(steps=60))
    assert chi_square(counts_of(three_tokens, sampled[-1]), three_tokens.p.flatten()) < 4.5


def test_given_tokens_stay_and_condition_the_others(
    three_tokens: Any, chi_square: ChiSquare
) -> None:
    start = masks(three_tokens, 3000)
    start[:, 1] = 2
    sampled, _ = states(three_tokens, start, Ancestral(steps=50))
    assert all((ids[:, 1] == 2).all() for ids in sampled)
    law = torch.zeros_like(three_tokens.p)
    law[:, 2] = three_tokens.p[:, 2] / three_tokens.p[:, 2].sum()
    assert chi_square(counts_of(three_tokens, sampled[-1]), law.flatten()) < 4.5


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_it_ends_without_masks_and_never_changes_the_prompt(three_tokens: Any, steps: int) -> None:
    start = masks(three_tokens, 40)
    start[:20, 0] = torch.arange(20) % 3
    start[30:, 1:] = torch.arange(20).view(10, 2) % 3
    before = start.clone()
    sampler = Ancestral(steps=steps)
    sampled, evaluations = states(three_tokens, start, sampler)
    assert torch.equal(start, before)
    assert len(sampled) == steps
    assert 1 <= evaluations <= steps
    given = start != three_tokens.mask
    for ids in sampled:
        assert torch.equal(ids[given], start[given])
    assert (sampled[-1] < three_tokens.mask).all()
    assert (sampled[-1] >= 0).all()


def test_a_revealed_token_never_changes(three_tokens: Any) -> None:
    sampled, _ = states(three_tokens, masks(three_tokens, 200), Ancestral(steps=6))
    for earlier, later in itertools.pairwise(sampled):
        revealed = earlier != three_tokens.mask
        assert torch.equal(earlier[revealed], later[revealed])
    shares = [float((ids != three_tokens.mask).double().mean()) for ids in sampled]
    assert shares == pytest.approx([n / 6 for n in range(1, 7)], abs=0.08)


def test_the_network_is_asked_at_the_current_level_and_once_for_every_token(
    three_tokens: Any,
) -> None:
    """Of the texts alone in which the step reveals something."""
    asked: list[Query] = []
    start = masks(three_tokens, 100)
    sampled, evaluations = states(three_tokens, start, Ancestral(steps=5), asked=asked)
    assert evaluations == len(asked) == 5
    pairs = itertools.pairwise([start, *sampled])
    for number, (query, (before, after)) in enumerate(zip(asked, pairs, strict=True)):
        changed = (before != after).any(dim=1)
        assert 0 < len(query.ids_BL) == changed.sum() < 100
        assert torch.equal(query.ids_BL, before[changed])
        assert torch.equal(query.predict_mask_BL, (before != after)[changed])
        torch.testing.assert_close(query.level_BK, torch.full((changed.sum(), 1), 1 - number / 5))


def test_steps_that_reveal_nothing_cost_no_evaluation(three_tokens: Any) -> None:
    for run in range(40):
        start = masks(three_tokens, 1)
        sampled, count = states(
            three_tokens, start, Ancestral(steps=4), position_B=torch.tensor([run])
        )
        pairs = itertools.pairwise([start, *sampled])
        assert count == sum(not torch.equal(before, after) for before, after in pairs)


@pytest.mark.parametrize(("steps", "length"), [(4, 3), (20, 9), (9, 20), (50, 40)])
def test_evaluations_are_as_few_as_the_cached_samplers(steps: int, length: int) -> None:
    """T (1 - (1 - 1/T)^L) on average (MDLM): those of a text alone, in which it changes."""
    one_id, rows = Joint(torch.ones((1,) * length)), 1000
    start = masks(one_id, rows)
    sampled, _ = states(one_id, start, Ancestral(steps=steps))
    pairs = itertools.pairwise([start, *sampled])
    changes_B = torch.stack([(a != b).any(dim=1) for a, b in pairs]).sum(dim=0).double()
    expected = steps * (1 - (1 - 1 / steps) ** length)
    assert abs(changes_B.mean() - expected) < 4 * float(changes_B.std()) / rows**0.5


def test_a_finished_text_costs_no_evaluation(three_tokens: Any) -> None:
    start = torch.tensor([[0, 1, 2]])
    sampled, evaluations = states(three_tokens, start, Ancestral(steps=3))
    assert evaluations == 0
    assert all(torch.equal(ids, start) for ids in sampled)


def test_samples_do_not_depend_on_how_they_are_batched(three_tokens: Any) -> None:
    start, sampler = masks(three_tokens, 30), Ancestral(steps=4)
    whole, _ = states(three_tokens, start, sampler)
    kept = torch.tensor([17, 3, 29, 4])
    part, _ = states(three_tokens, start[kept], sampler, position_B=kept)
    for every, some in zip(whole, part, strict=True):
        assert torch.equal(every[kept], some)
    other, _ = states(three_tokens, start, sampler, seed=1)
    assert not torch.equal(whole[-1], other[-1])
    assert len(whole[-1].unique(dim=0)) > 5


def test_the_nucleus_is_drawn_from_before_temperature(chi_square: ChiSquare) -> None:
    one = Joint(torch.tensor([0.2, 0.45, 0.35], dtype=torch.float64))
    (sampled,), _ = states(one, masks(one, 3000), Ancestral(steps=1, top_p=0.75))
    law = torch.tensor([0.0, 0.45, 0.35]) / 0.8
    assert chi_square(counts_of(one, sampled), law) < 4.5
    (sampled,), _ = states(one, masks(one, 3000), Ancestral(steps=1, top_p=0.5, temperature=0.5))
    law = torch.tensor([0.0, 0.45**2, 0.35**2])
    assert chi_square(counts_of(one, sampled), law / law.sum()) < 4.5


def test_temperature_zero_takes_the_likeliest_token(two_tokens: Any) -> None:
    greedy = Ancestral(steps=1, temperature=0.0)
    sampled, _ = states(two_tokens, masks(two_tokens, 20), greedy)
    assert (sampled[-1][:, 1] == 0).all()
    start = torch.tensor([[1, two_tokens.mask], [two_tokens.mask, 0]])
    sampled, _ = states(two_tokens, start, greedy)
    assert sampled[-1].tolist() == [[1, 1], [0, 0]]
