"""Guidance on the given text, against Bayes' rule on a joint."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from mask_sampling import counts_of, masks, states
from torch import Tensor

from model.query import Query
from model.samplers.ancestral import Ancestral
from model.samplers.confidence import Confidence

ChiSquare = Callable[[Tensor, Tensor], float]


def guided(joint: Any, ids: list[int], place: int, weight: float) -> Tensor:
    """p(x | visible)^(1 + w) / p(x | visible but the given token 0)^w, normalised, ``[V]``."""
    where = torch.arange(joint.length)[None] == place
    alone = [joint.mask, *ids[1:]]
    given, free = (
        joint.denoise(torch.tensor([x]), None, where)[0, : joint.mask].exp() for x in (ids, alone)
    )
    p = given ** (1 + weight) / free**weight
    return p / p.sum()


def law_of(joint: Any, given: int, weight: float) -> Tensor:
    """The law of the other two tokens, revealed one at a time in either order, ``[V, V]``."""
    law = torch.zeros(joint.vocab, joint.vocab, dtype=torch.float64)
    for first, second in ((1, 2), (2, 1)):
        start = [given, joint.mask, joint.mask]
        p_first = guided(joint, start, first, weight)
        for token in range(joint.vocab):
            after = list(start)
            after[first] = token
            p = 0.5 * p_first[token] * guided(joint, after, second, weight)
            if first == 1:
                law[token] += p
            else:
                law[:, token] += p
    return law


@pytest.mark.parametrize("weight", [0.5, 2.0])
@pytest.mark.parametrize("sampler", [Ancestral, Confidence])
def test_guided_samples_follow_bayes_rule(
    three_tokens: Any, chi_square: ChiSquare, weight: float, sampler: Any
) -> None:
    start = masks(three_tokens, 5000)
    start[:, 0] = 1
    ways = {Ancestral: {"steps": 100}, Confidence: {"steps": 2, "criterion": "random"}}
    asked: list[Query] = []
    sampled, evaluations = states(
        three_tokens, start, sampler(guidance=weight, **ways[sampler]), asked=asked
    )
    law = torch.zeros_like(three_tokens.p)
    law[1] = law_of(three_tokens, 1, weight)
    assert float((law[1] - law_of(three_tokens, 1, 0.0)).abs().max()) > 0.01
    assert chi_square(counts_of(three_tokens, sampled[-1]), law.flatten()) < 4.5
    assert evaluations == 2 * len(asked)
    for query in asked:
        given, alone = query.ids_BL.chunk(2)
        assert (given[:, 0] == 1).all()
        assert (alone[:, 0] == three_tokens.mask).all()
        assert torch.equal(given[:, 1:], alone[:, 1:])


@pytest.mark.parametrize(
    "sampler", [Ancestral(steps=3), Confidence(steps=2), Confidence(steps=2, criterion="margin")]
)
def test_without_weight_it_is_no_guidance(three_tokens: Any, sampler: Any) -> None:
    start = masks(three_tokens, 200)
    start[:, 0] = torch.arange(200) % 3
    asked: list[Query] = []
    plain, evaluations = states(three_tokens, start, sampler, asked=asked)
    assert evaluations == len(asked)
    assert all(len(query.ids_BL) <= 200 for query in asked)
    almost, twice = states(three_tokens, start, replace(sampler, guidance=1e-9))
    assert twice == 2 * evaluations
    assert all(torch.equal(a, b) for a, b in itertools.zip_longest(plain, almost))


def test_confidence_is_that_of_the_guided_prediction(three_tokens: Any) -> None:
    start = masks(three_tokens, 40)
    start[:, 0] = torch.arange(40) % 3
    greedy = Confidence(steps=2, temperature=0.0, guidance=3.0)
    (first, _), _ = states(three_tokens, start, greedy)
    for given in range(3):
        ids = [given, three_tokens.mask, three_tokens.mask]
        one, other = (guided(three_tokens, ids, place, 3.0) for place in (1, 2))
        best = [int(one.argmax()), three_tokens.mask]
        if float(other.max()) > float(one.max()):
            best = [three_tokens.mask, int(other.argmax())]
        assert first[given].tolist() == [given, *best]
