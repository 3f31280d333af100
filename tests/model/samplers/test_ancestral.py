"""Ancestral sampling against joints that are known exactly."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.objectives.mdlm import Mdlm
from model.prediction import Answer, Prediction, Read
from model.query import Query
from model.samplers import Job
from model.samplers.ancestral import Ancestral
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

ChiSquare = Callable[[Tensor, Tensor], float]

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


class Scripted:
    """In the place of a network: logits from a function."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        logits_MR = self.denoise(query.ids_BL, query.level_BK, query.predict_mask_BL)
        return read(Prediction(logits=Categorical(logits_MR)))

    def encode(self, query: Query) -> Query:
        return query


def states(
    joint: Any,
    ids_BL: Tensor,
    sampler: Ancestral,
    *,
    position_B: Tensor | None = None,
    seed: int = 0,
    schedule: Any = None,
    denoise: Denoise | None = None,
) -> tuple[list[Tensor], int]:
    """The ids after every step, and the number of network evaluations."""
    after: list[Tensor] = []
    job = Job(
        ids_BL=ids_BL,
        free_BL=ids_BL == joint.mask,
        position_B=torch.arange(len(ids_BL)) if position_B is None else position_B,
        draws=Draws(seed=seed, split="sample", batch=len(ids_BL)),
        objective=Mdlm(schedule=schedule or LogLinear()),
        model=DiT(vocab_size=joint.vocab),
        network=Scripted(denoise or joint.denoise),
        on_step=after.append,
    )
    assert torch.equal(sampler.run(job), after[-1])
    return after, job.evaluations


def masks(joint: Any, rows: int) -> Tensor:
    return torch.full((rows, joint.length), joint.mask)


def counts_of(joint: Any, ids_BL: Tensor) -> Tensor:
    code = (ids_BL * joint.vocab ** torch.arange(joint.length - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=joint.vocab**joint.length)


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
    levels = sampler.levels()
    assert (levels[0], levels[-1], len(levels)) == (1, 0, steps + 1)
    assert (levels.diff() < 0).all()
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
    asked: list[tuple[Tensor, Tensor]] = []

    def denoise(ids_BL: Tensor, level_B1: Tensor, predict_mask_BL: Tensor) -> Tensor:
        assert (ids_BL[predict_mask_BL] == three_tokens.mask).all()
        asked.append((level_B1, predict_mask_BL))
        return three_tokens.denoise(ids_BL, level_B1, predict_mask_BL)

    start = masks(three_tokens, 100)
    _, evaluations = states(three_tokens, start, Ancestral(steps=5), denoise=denoise)
    assert evaluations == len(asked) == 5
    for number, (level, _) in enumerate(asked):
        torch.testing.assert_close(level, torch.full((100, 1), 1 - number / 5))
    assert (torch.stack([where for _, where in asked]).sum(0) == 1).all()


def test_steps_that_reveal_nothing_cost_no_evaluation(three_tokens: Any) -> None:
    steps, length, runs = 4, 3, 200
    evaluations = []
    for run in range(runs):
        start = masks(three_tokens, 1)
        sampled, count = states(
            three_tokens, start, Ancestral(steps=steps), position_B=torch.tensor([run])
        )
        pairs = itertools.pairwise([start, *sampled])
        assert count == sum(not torch.equal(before, after) for before, after in pairs)
        evaluations.append(count)
    found = torch.tensor(evaluations, dtype=torch.float64)
    expected = steps * (1 - (1 - 1 / steps) ** length)
    assert expected == pytest.approx(2.3125)
    assert abs(found.mean() - expected) < 4 * float(found.std()) / runs**0.5


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


def test_temperature_zero_takes_the_likeliest_token(two_tokens: Any) -> None:
    greedy = Ancestral(steps=1, temperature=0.0)
    sampled, _ = states(two_tokens, masks(two_tokens, 20), greedy)
    assert (sampled[-1][:, 1] == 0).all()
    start = torch.tensor([[1, two_tokens.mask], [two_tokens.mask, 0]])
    sampled, _ = states(two_tokens, start, greedy)
    assert sampled[-1].tolist() == [[1, 1], [0, 0]]
