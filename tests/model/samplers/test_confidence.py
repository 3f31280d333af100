"""Unmasking by confidence: how many tokens, which, and in which blocks."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from asking import Known
from mask_sampling import counts_of, masks, states
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.objectives.mdlm import Mdlm
from model.query import Query
from model.samplers import Job
from model.samplers.confidence import Confidence
from model.schedules.cosine import Cosine

ChiSquare = Callable[[Tensor, Tensor], float]

Score = Callable[[Tensor, int], float]
"""Confidence in an id, given the probabilities of its position."""

SCORES: dict[str, Score] = {
    "probability": lambda p, token: float(p[token]),
    "entropy": lambda p, _: float((p * p.log()).sum()),
    "margin": lambda p, _: float(p.topk(2).values.diff().neg()),
}


def law_of(joint: Any, score: Score) -> Tensor:
    """The exact law of keeping the surest of independent draws, one at a time, ``[V, ..., V]``."""
    law = torch.zeros_like(joint.p)

    def go_on(ids: list[int], p: float) -> None:
        hidden = [i for i, token in enumerate(ids) if token == joint.mask]
        if not hidden:
            law[tuple(ids)] += p
            return
        where = torch.tensor([[i in hidden for i in range(joint.length)]])
        p_MV = joint.denoise(torch.tensor([ids]), None, where)[:, : joint.mask].exp()
        for drawn in itertools.product(range(joint.vocab), repeat=len(hidden)):
            sure = [score(p_MV[n], token) for n, token in enumerate(drawn)]
            best = sure.index(max(sure))
            after = list(ids)
            after[hidden[best]] = drawn[best]
            go_on(after, p * math.prod(float(p_MV[n, token]) for n, token in enumerate(drawn)))

    go_on([joint.mask] * joint.length, 1.0)
    return law


@pytest.mark.parametrize("criterion", SCORES)
def test_the_surest_token_is_kept_first(
    three_tokens: Any, chi_square: ChiSquare, criterion: Any
) -> None:
    sampler = Confidence(steps=3, criterion=criterion)
    sampled, evaluations = states(three_tokens, masks(three_tokens, 6000), sampler)
    assert evaluations == 3
    law = law_of(three_tokens, SCORES[criterion])
    assert chi_square(counts_of(three_tokens, sampled[-1]), law.flatten()) < 4.5


@pytest.mark.parametrize(
    ("criterion", "first"), [("margin", 0), ("entropy", 1), ("probability", 2)]
)
def test_each_criterion_has_its_own_surest_position(criterion: Any, first: int) -> None:
    """With margins .4, .1, .28, entropies 1.50, .69, 1.10 and likeliest ids of .5, .55, .58."""
    p_3V = torch.tensor([
        [0.5, *[0.1] * 5, 0.0], [0.55, 0.45, *[0.0] * 5], [0.58, 0.3, *[0.03] * 4, 0.0],
    ])  # fmt: skip
    where, seen = torch.ones(1, 3, dtype=torch.bool), list[Tensor]()
    job = Job(
        ids_BL=torch.zeros(1, 3, dtype=torch.int64),
        free_BL=where,
        position_B=torch.arange(1),
        draws=Draws(seed=0, split="sample", batch=1),
        objective=Mdlm(),
        model=DiT(vocab_size=6),
        network=Known(lambda query: p_3V[query.predict_mask_BL[0]].log()),
        on_step=seen.append,
    )
    Confidence(steps=3, temperature=0.0, criterion=criterion).run(job)
    assert (seen[0][0] != 6).nonzero().tolist() == [[first]]


def test_one_at_a_time_in_random_order_the_joint_is_sampled(
    three_tokens: Any, chi_square: ChiSquare
) -> None:
    sampler = Confidence(steps=3, criterion="random")
    sampled, evaluations = states(three_tokens, masks(three_tokens, 4000), sampler)
    assert evaluations == 3
    assert chi_square(counts_of(three_tokens, sampled[-1]), three_tokens.probability) < 4.5
    first = (sampled[0] != three_tokens.mask).long().argmax(dim=1)
    assert chi_square(torch.bincount(first, minlength=3), torch.full((3,), 1 / 3)) < 4.5


def run(sampler: Confidence, free_BL: Tensor, seen: list[Tensor], asked: list[Query]) -> Tensor:
    """A network as sure of a token as its column is large."""

    def logits(query: Query) -> Tensor:
        asked.append(query)
        _, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
        return torch.nn.functional.one_hot(column_M % 5, 6) * (1.0 + column_M[:, None])

    job = Job(
        ids_BL=torch.full(free_BL.shape, 1),
        free_BL=free_BL,
        position_B=torch.arange(len(free_BL)),
        draws=Draws(seed=0, split="sample", batch=len(free_BL)),
        objective=Mdlm(schedule=Cosine()),
        model=DiT(vocab_size=5),
        network=Known(logits),
        on_step=seen.append,
    )
    return sampler.run(job)


def columns_of(seen: list[Tensor], row: int) -> list[list[int]]:
    """Which columns each step filled in."""
    before, found = torch.full_like(seen[0], 5), []
    for ids in seen:
        is_new = (before[row] == 5) & (ids[row] != 5)
        found.append(is_new.nonzero()[:, 0].tolist())
        before = ids
    return found


def test_tokens_are_spread_evenly_with_the_remainder_first() -> None:
    """11 over 4 steps: 3, 3, 3, 2; of a text with 2 blanks, 1, 1."""
    seen, asked = list[Tensor](), list[Query]()
    free_BL = torch.ones(2, 11, dtype=torch.bool)
    free_BL[1, [0, 1, 2, 4, 5, 6, 7, 9, 10]] = False
    found = run(Confidence(steps=4, temperature=0.0), free_BL, seen, asked)
    assert torch.equal(found[0], torch.arange(11) % 5)
    assert found[1].tolist() == [1, 1, 1, 3, 1, 1, 1, 1, 3, 1, 1]
    given = (~free_BL[1]).nonzero()[:, 0].tolist()
    assert columns_of(seen, 0) == [[8, 9, 10], [5, 6, 7], [2, 3, 4], [0, 1]]
    assert columns_of(seen, 1) == [sorted([*given, 8]), [3], [], []]
    # All that is masked is asked for, at the level of that share; a finished text is not evaluated.
    assert [query.predict_mask_BL.sum(dim=1).tolist() for query in asked] == [
        [11, 2], [8, 1], [5], [2],
    ]  # fmt: skip
    share = torch.tensor([11, 11, 8, 5.5, 5, 2]).double() / 11
    level = torch.cat([query.level_BK[:, 0] for query in asked])
    torch.testing.assert_close(level, Cosine().exact().time(1 - share).float())


def test_blocks_of_free_positions_are_written_from_left_to_right() -> None:
    seen, asked = list[Tensor](), list[Query]()
    free_BL = torch.ones(1, 9, dtype=torch.bool)
    free_BL[0, [0, 1, 5]] = False
    sampler = Confidence(steps=2, block_length=4, temperature=0.0)
    run(sampler, free_BL, seen, asked)
    assert columns_of(seen, 0) == [[0, 1, 4, 5, 6], [2, 3], [8], [7]]
    assert sampler.num_steps(9) == 2 * 3
    assert Confidence(steps=9, block_length=4).num_steps(9) == 3 * 4
    assert Confidence(steps=9).num_steps(5) == 5


@pytest.mark.parametrize("criterion", [*SCORES, "random"])
def test_nothing_but_the_sample_decides(three_tokens: Any, criterion: Any) -> None:
    start = masks(three_tokens, 30)
    start[::3, 1] = 2
    sampler = Confidence(steps=2, block_length=2, criterion=criterion)
    whole, _ = states(three_tokens, start, sampler)
    kept = torch.tensor([17, 3, 29, 4, 0])
    part, _ = states(three_tokens, start[kept], sampler, position_B=kept)
    assert torch.equal(whole[-1][kept], part[-1])
