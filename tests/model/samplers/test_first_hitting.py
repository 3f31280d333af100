"""First-hitting sampling: the joint in L evaluations, at the times of order statistics."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from mask_sampling import counts_of, masks, states
from torch import Tensor

from model.query import Query
from model.samplers.first_hitting import FirstHitting
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

ChiSquare = Callable[[Tensor, Tensor], float]


def test_the_joint_is_sampled_in_one_evaluation_for_each_token(
    three_tokens: Any, chi_square: ChiSquare
) -> None:
    sampled, evaluations = states(three_tokens, masks(three_tokens, 4000), FirstHitting())
    assert evaluations == len(sampled) == 3
    assert chi_square(counts_of(three_tokens, sampled[-1]), three_tokens.probability) < 4.5
    for number, ids in enumerate(sampled):
        assert ((ids != three_tokens.mask).sum(dim=1) == number + 1).all()
    for before, after in pairwise(sampled):
        visible = before != three_tokens.mask
        assert torch.equal(before[visible], after[visible])


def test_every_order_is_as_likely(three_tokens: Any, chi_square: ChiSquare) -> None:
    asked: list[Query] = []
    states(three_tokens, masks(three_tokens, 3000), FirstHitting(), asked=asked)
    column_B3 = torch.stack([query.predict_mask_BL.long().argmax(dim=1) for query in asked], dim=1)
    counts = torch.bincount((column_B3 * torch.tensor([9, 3, 1])).sum(dim=1), minlength=27)
    law = torch.zeros(27)
    law[[5, 7, 11, 15, 19, 21]] = 1 / 6  # 012, 021, 102, 120, 201, 210
    assert chi_square(counts, law) < 4.5


@pytest.mark.parametrize("schedule", [LogLinear(), Cosine()])
def test_levels_are_those_of_the_next_token_to_be_revealed(
    three_tokens: Any, schedule: Any
) -> None:
    """Of n mask rates the k-th largest has the mean (n - k + 1) / (n + 1)."""
    asked: list[Query] = []
    rows = 4000
    start = masks(three_tokens, rows)
    states(three_tokens, start, FirstHitting(), asked=asked, schedule=schedule)
    level_3B = torch.stack([query.level_BK[:, 0].double() for query in asked])
    assert (level_3B.diff(dim=0) < 0).all()
    rate_3 = (1 - schedule.exact().alpha(level_3B)).mean(dim=1)
    spread = (3 / 80 / rows) ** 0.5  # of the outer ones; that of the middle is 1/20
    assert ((rate_3 - torch.tensor([0.75, 0.5, 0.25])).abs() < 4.5 * spread).all()


def test_texts_with_fewer_blanks_wait(three_tokens: Any, chi_square: ChiSquare) -> None:
    start = masks(three_tokens, 4000)
    start[1::2, 1] = 2
    start[0] = torch.tensor([0, 1, 2])
    sampled, evaluations = states(three_tokens, start, FirstHitting())
    assert evaluations == 3
    assert torch.equal(sampled[-1][0], start[0])
    law = torch.zeros_like(three_tokens.p)
    law[:, 2] = three_tokens.p[:, 2] / three_tokens.p[:, 2].sum()
    assert chi_square(counts_of(three_tokens, sampled[-1][1::2]), law.flatten()) < 4.5


def test_temperature_zero_and_a_small_nucleus_take_the_likeliest(three_tokens: Any) -> None:
    start = masks(three_tokens, 50)
    greedy, _ = states(three_tokens, start, FirstHitting(temperature=0.0))
    narrow, _ = states(three_tokens, start, FirstHitting(top_p=1e-9))
    assert torch.equal(greedy[-1], narrow[-1])
    assert len(greedy[-1].unique(dim=0)) <= 6  # by the order alone
