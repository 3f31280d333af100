"""Ancestral sampling of uniform noise against laws that are known exactly.

The network's part is played by p(x_0 at a position | the others of x_t), with which each step
is the true reverse step of that position: of one token any number of steps gives p(x), of
several the steps of all at once do, in the limit of many.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.objectives.udlm import Udlm
from model.prediction import Answer, Prediction, Read
from model.query import Query
from model.samplers import Job
from model.samplers.uniform_ancestral import UniformAncestral
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from model.verification.joint import Joint
from model.verification.oracles.udlm import others

ChiSquare = Callable[[Tensor, Tensor], float]

LOG_LINEAR = LogLinear()


class Right:
    """The right prediction of a joint, at levels of a schedule; what was asked is kept."""

    def __init__(self, joint: Joint, schedule: Any) -> None:
        self.joint, self.schedule, self.asked = joint, schedule.exact(), list[Query]()

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        self.asked.append(query)
        alpha_B1 = self.schedule.alpha(query.level_BK.double())
        p_BLV = others(self.joint, query.ids_BL, query.predict_mask_BL, alpha_B1)
        logits_MR = torch.nn.functional.pad(
            p_BLV[query.predict_mask_BL].log(), (0, 1), value=-torch.inf
        )
        return read(Prediction(logits=Categorical(logits_MR)))

    def encode(self, query: Query) -> Query:
        return query


def job_of(
    joint: Joint, ids_BL: Tensor, free_BL: Tensor | None = None, schedule: Any = LOG_LINEAR
) -> Job:
    everywhere = torch.ones_like(ids_BL, dtype=torch.bool)
    return Job(
        ids_BL=ids_BL,
        free_BL=everywhere if free_BL is None else free_BL,
        position_B=torch.arange(len(ids_BL)),
        draws=Draws(seed=0, split="sample", batch=len(ids_BL)),
        objective=Udlm(schedule=schedule),
        model=DiT(vocab_size=joint.vocab),
        network=Right(joint, schedule),
    )


def zeros(joint: Joint, rows: int) -> Tensor:
    return torch.zeros(rows, joint.length, dtype=torch.int64)


def counts_of(joint: Joint, ids_BL: Tensor) -> Tensor:
    code = (ids_BL * joint.vocab ** torch.arange(joint.length - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=joint.vocab**joint.length)


def law_of(joint: Joint, steps: int, schedule: Any = LOG_LINEAR) -> Tensor:
    """Of the ids after so many steps: the chain's matrices, one after the other."""
    states_ZL, num = joint.outcomes, joint.vocab
    law_Z = torch.full((len(states_ZL),), 1 / len(states_ZL), dtype=torch.float64)
    alphas = schedule.exact().alpha(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    for alpha_t, alpha_s in itertools.pairwise(alphas):
        noised = torch.ones_like(states_ZL, dtype=torch.bool)
        p_ZLV = others(joint, states_ZL, noised, alpha_t.expand(len(states_ZL), 1))
        kept = alpha_t / alpha_s
        stay_ZLV = kept * torch.nn.functional.one_hot(states_ZL, num) + (1 - kept) / num
        weight_ZLV = stay_ZLV * (alpha_s * p_ZLV + (1 - alpha_s) / num)
        step_ZLV = weight_ZLV / weight_ZLV.sum(dim=-1, keepdim=True)
        to_ZZ = torch.stack(
            [step_ZLV[:, place, states_ZL[:, place]] for place in range(joint.length)]
        ).prod(dim=0)
        law_Z = law_Z @ to_ZZ
    return law_Z


def test_many_steps_give_the_joint_and_one_token_needs_one() -> None:
    two, one = Joint.random(3, 2), Joint.random(5, 1)
    for steps in (1, 2, 7):
        torch.testing.assert_close(law_of(one, steps), one.p, rtol=1e-12, atol=0)
        cosine = law_of(one, steps, Cosine())
        torch.testing.assert_close(cosine, one.p, rtol=1e-12, atol=0)
    off = [float((law_of(two, steps) - two.p.flatten()).abs().sum()) for steps in (1, 8, 64, 512)]
    assert off[0] > 0.1
    assert off[0] > off[1] > off[2] > off[3]
    assert off[2] / off[3] == pytest.approx(8, rel=0.02)  # of first order in the step


@pytest.mark.parametrize(
    ("joint", "steps", "schedule"),
    [
        (Joint.random(5, 1), 1, LogLinear()),
        (Joint.random(5, 1), 6, Cosine(eps=0.2)),
        (Joint.random(3, 2), 1, LogLinear()),
        (Joint.random(3, 2), 3, LogLinear(eps=0.2)),
        (Joint.random(3, 2), 3, Cosine()),
        (Joint.random(2, 3), 40, LogLinear()),
    ],
)
def test_samples_follow_the_law_of_the_chain(
    chi_square: ChiSquare, joint: Joint, steps: int, schedule: Any
) -> None:
    job = job_of(joint, zeros(joint, 4000), schedule=schedule)
    drawn = UniformAncestral(steps=steps).run(job)
    assert job.evaluations == steps
    assert chi_square(counts_of(joint, drawn), law_of(joint, steps, schedule)) < 4.5
    if steps == 40:
        assert chi_square(counts_of(joint, drawn), joint.p.flatten()) < 4.5


def test_given_tokens_stay_and_condition_the_others(chi_square: ChiSquare) -> None:
    joint, given, seen = Joint.random(3, 2), torch.tensor([2, 0]), list[Tensor]()
    job = job_of(joint, given.repeat(4000, 1), torch.tensor([False, True]).repeat(4000, 1))
    job.on_step = seen.append
    drawn = UniformAncestral(steps=2).run(job)
    assert all((ids[:, 0] == 2).all() for ids in (*seen, drawn))
    law = joint.p[2] / joint.p[2].sum()
    assert chi_square(torch.bincount(drawn[:, 1], minlength=3), law) < 4.5


def test_it_starts_from_noise_and_asks_at_falling_levels(chi_square: ChiSquare) -> None:
    joint = Joint.random(3, 2)
    job = job_of(joint, zeros(joint, 2000))
    UniformAncestral(steps=4).run(job)
    assert isinstance(job.network, Right)
    assert [float(query.level_BK[0, 0]) for query in job.network.asked] == [1.0, 0.75, 0.5, 0.25]
    start = counts_of(joint, job.network.asked[0].ids_BL)
    assert chi_square(start, torch.full((9,), 1 / 9)) < 4.5


def test_a_token_may_change_more_than_once() -> None:
    joint, seen = Joint.random(3, 2), list[Tensor]()
    job = job_of(joint, zeros(joint, 500))
    job.on_step = seen.append
    UniformAncestral(steps=20).run(job)
    changes = torch.stack([(a != b).sum(1) for a, b in itertools.pairwise(seen)]).sum(0)
    assert int(changes.max()) > joint.length


def test_where_all_is_given_nothing_is_asked() -> None:
    joint, seen = Joint.random(3, 2), list[Tensor]()
    ids = torch.tensor([[2, 1]])
    job = job_of(joint, ids, torch.zeros(1, 2, dtype=torch.bool))
    job.on_step = seen.append
    assert torch.equal(UniformAncestral(steps=3).run(job), ids)
    assert (job.evaluations, len(seen)) == (0, 3)


def test_temperature_zero_and_a_small_nucleus_predict_the_likeliest() -> None:
    joint = Joint(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64))
    for settings in ({"temperature": 0.0}, {"top_p": 0.5}, {"temperature": 0.01}):
        drawn = UniformAncestral(steps=3, **settings).run(job_of(joint, zeros(joint, 200)))
        assert (drawn == 1).all(), settings
    two = UniformAncestral(steps=1, top_p=0.8).run(job_of(joint, zeros(joint, 300)))
    assert set(two.flatten().tolist()) == {1, 2}


def test_the_greedy_tail_ends_with_the_likeliest() -> None:
    joint, rows = Joint.random(3, 2), 300
    plain, greedy = job_of(joint, zeros(joint, rows)), job_of(joint, zeros(joint, rows))
    UniformAncestral(steps=5).run(plain)
    drawn = UniformAncestral(steps=5, greedy_tail=True).run(greedy)
    assert isinstance(plain.network, Right)
    assert isinstance(greedy.network, Right)
    last = greedy.network.asked[-1]
    assert torch.equal(last.ids_BL, plain.network.asked[-1].ids_BL)
    p_BLV = others(joint, last.ids_BL, last.predict_mask_BL, 1 - last.level_BK.double())
    assert torch.equal(drawn, p_BLV.argmax(dim=-1))
