"""SUNDAE's sampler: its chain, which texts are finished, and which positions are revised."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from asking import Denoise, Known
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.objectives.sundae import Sundae
from model.processes.uniform import random_ids
from model.query import Query
from model.samplers import Job
from model.samplers.unrolled import Unrolled
from model.verification.joint import Joint

VOCAB = 7


def job_of(denoise: Denoise, rows: int, length: int, vocab: int) -> Job:
    return Job(
        ids_BL=torch.zeros(rows, length, dtype=torch.int64),
        free_BL=torch.ones(rows, length, dtype=torch.bool),
        position_B=torch.arange(rows),
        draws=Draws(seed=0, split="sample", batch=rows),
        objective=Sundae(),
        model=DiT(vocab_size=vocab, width=2, num_heads=1),
        network=Known(denoise),
    )


def given_the_others(joint: Joint) -> Denoise:
    """p(x_i | all others), whatever stands at i."""

    def denoise(query: Query) -> Tensor:
        row_M, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
        ids_ML = query.ids_BL[row_M].clone()
        here_ML = torch.arange(joint.length) == column_M[:, None]
        ids_ML[here_ML] = joint.mask
        return joint.denoise(ids_ML, torch.zeros(len(ids_ML), 1), here_ML)

    return denoise


def one_at_a_time(joint: Joint) -> Tensor:
    """The chain that draws one position, chosen evenly, of its conditional: ``[N, N]``."""
    x_NL, chain_NN = joint.outcomes, torch.zeros(2 * (len(joint.outcomes),), dtype=torch.float64)
    for place in range(joint.length):
        others = [i for i in range(joint.length) if i != place]
        same_NN = (x_NL[:, None][..., others] == x_NL[None][..., others]).all(dim=-1)
        weight_NN = same_NN * joint.probability
        chain_NN += weight_NN / weight_NN.sum(dim=1, keepdim=True) / joint.length
    return chain_NN


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_samples_follow_the_chain_from_even_ids(
    three_tokens: Any, chi_square: Callable[[Tensor, Tensor], float], steps: int
) -> None:
    """One of three positions a step, and no early end: its law after any step, at last P(x)."""
    job = job_of(given_the_others(three_tokens), 4000, 3, 3)
    sampler = Unrolled(steps=steps, temperature=1.0, min_steps=steps)
    drawn = sampler.run(job)
    assert job.evaluations == steps
    law = torch.full((27,), 1 / 27, dtype=torch.float64)
    law = law @ torch.linalg.matrix_power(one_at_a_time(three_tokens), steps)
    code = (drawn * torch.tensor([9, 3, 1])).sum(dim=1)
    assert chi_square(torch.bincount(code, minlength=27), law) < 4.5
    if steps == 40:
        torch.testing.assert_close(law, three_tokens.probability, rtol=1e-3, atol=0)


def counting(query: Query) -> Tensor:
    """Surely one more than what stands there, up to the last id."""
    ids_M = (query.ids_BL[query.predict_mask_BL] + 1).clamp(max=VOCAB - 1)
    return torch.nn.functional.one_hot(ids_M, VOCAB + 1).float().log()


def test_a_text_is_finished_by_a_step_that_changes_none_of_its_ids() -> None:
    """Each by itself: in all of its ids it is VOCAB - 1 less its smallest id steps away."""
    seen: list[Tensor] = []
    job = job_of(counting, 6, 2, VOCAB)
    job.on_step = seen.append
    drawn = Unrolled(proportion=1.0, min_steps=1).run(job)
    assert bool((drawn == VOCAB - 1).all())
    start = random_ids(job.draws.uniform("start", job.position_B, 2), job.model)
    away_B = VOCAB - 1 - start.amin(dim=1)
    assert job.evaluations == len(seen) == int(away_B.max()) + 1
    for number, ids in enumerate(seen):
        assert torch.equal(ids, (start + number + 1).clamp(max=VOCAB - 1))
    short = Unrolled(proportion=1.0, min_steps=1, steps=2)
    assert torch.equal(short.run(job_of(counting, 6, 2, VOCAB)), seen[1])
    longest = Unrolled(proportion=1.0, min_steps=9)
    job = job_of(counting, 6, 2, VOCAB)
    assert torch.equal(longest.run(job), drawn)
    assert job.evaluations == 9


@pytest.mark.parametrize("proportion", [0.01, 0.3, 0.5, 1.0])
def test_a_share_of_the_free_positions_is_revised_in_a_step(proportion: float) -> None:
    seen: list[Tensor] = []
    job = job_of(counting, 200, 10, VOCAB)
    job.free_BL = torch.arange(10) < 1 + torch.arange(200)[:, None] % 10
    job.on_step = seen.append
    Unrolled(proportion=proportion, steps=1).run(job)
    start = random_ids(job.draws.uniform("start", job.position_B, 10), job.model)
    start = torch.where(job.free_BL, start, 0)
    free_B = job.free_BL.sum(dim=1)
    most_B = (free_B.double() * proportion).round().clamp(min=1)
    revised = seen[0] != start
    assert bool((revised.sum(dim=1) <= most_B).all())
    steady_B = ((start == VOCAB - 1) & job.free_BL).any(dim=1)
    assert torch.equal(revised.sum(dim=1)[~steady_B].double(), most_B[~steady_B])
    assert not bool(revised[~job.free_BL].any())


def test_the_unsure_positions_are_revised_after_a_first_step_of_all() -> None:
    """At temperature 0 argmax-unrolled decoding: sure of a place in the order of its number."""
    where: list[list[bool]] = []
    before: list[Tensor] = []

    def surer(query: Query) -> Tensor:
        _, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
        ids_M = (query.ids_BL[query.predict_mask_BL] + 1) % VOCAB
        sure_M1 = 1.0 + column_M[:, None]
        one_hot_MR = torch.nn.functional.one_hot(ids_M, VOCAB + 1)
        return sure_M1 * one_hot_MR

    job = job_of(surer, 1, 10, VOCAB)
    start = random_ids(job.draws.uniform("start", job.position_B, 10), job.model)
    before.append(start)

    def watch(ids_BL: Tensor) -> None:
        where.append((ids_BL != before[-1])[0].tolist())
        before.append(ids_BL)

    job.on_step = watch
    Unrolled(order="unsure", temperature=0.0, proportion=0.3, steps=3).run(job)
    assert where == [[True] * 10, *([[place < 3 for place in range(10)]] * 2)]
