"""Every sampler of the registry, on every kind of network that it suits, and on the others."""

import dataclasses
from functools import cache
from types import NoneType
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.load import Plugin
from model.draws import Draws
from model.networks.base import Network
from model.networks.build import build
from model.networks.initialize import initial_value
from model.prediction import Answer, Read
from model.query import Query
from model.samplers import Job, Sampler
from pretrain.trial import OBJECTIVES, run_config

SAMPLERS = Plugin("model.samplers")
CASES = {name: run_config(name) for name in OBJECTIVES.names()}
"""The trial of each objective."""


def objective_of(name: str) -> Any:
    return CASES[name].objective


@cache
def network_of(name: str) -> Network:
    """Its weights moved: where all branches are closed nothing can be told apart."""
    found = build(CASES[name].model).eval()
    with torch.no_grad():
        for parameter, called in found.parameter_names().items():
            parameter.add_(initial_value(f"noise.{called}.q.weight", parameter.shape, 1, 0.3))
    return found


def sentence(sampler: Sampler, name: str) -> str:
    """Why a sampler does not suit an objective; nothing where it does."""
    try:
        sampler.suits(objective_of(name), CASES[name].model)
    except ValueError as error:
        return str(error)
    return ""


PAIRS = [(sampler, objective) for sampler in SAMPLERS.names() for objective in CASES]
SUITED = [pair for pair in PAIRS if not sentence(SAMPLERS.build(pair[0]), pair[1])]


OUT_OF_RANGE: dict[str, tuple[float, ...]] = {
    "steps": (0, 2**24 + 1),
    "temperature": (-0.1,),
    "top_k": (0,),
    "top_p": (0.0, 1.5),
    "proportion": (0.0, 1.1),
    "min_steps": (0,),
    "eta": (-0.1, 1.1),
    "clamp_below": (-0.1, 1.1),
    "guidance": (-0.1,),
    "block_length": (0,),
    "window": (0,),
    "stride": (0,),
    "remask_from": (0.0, 1.1),
    "remask_until": (-0.1, 1.0),
    "hold_alpha": (0.0, 1.0, 0.5),  # the last for want of time before and after it
}
"""Values that each setting of a sampler refuses."""
NUMBERS = [
    (name, field.name)
    for name in SAMPLERS.names()
    for field in dataclasses.fields(SAMPLERS.resolve(name))
    if isinstance(field.default, (int, float, NoneType)) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_numbers_out_of_range_are_refused(name: str, setting: str) -> None:
    for value in OUT_OF_RANGE[setting]:
        with pytest.raises(ValueError, match=f"^{setting} must "):
            SAMPLERS.resolve(name)(**{setting: value})


class Counted:
    """A network that counts for itself how often it is asked, and of how many texts."""

    def __init__(self, network: Network) -> None:
        self.network, self.asked, self.texts = network, 0, 0

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        self.asked += 1
        self.texts += len(query.ids_BL)
        return self.network.ask(query, read)

    def encode(self, query: Query) -> Query:
        return self.network.encode(query)


def job_of(name: str, rows: list[int], length: int = 8) -> Job:
    """All positions free, and a source where the network reads one."""
    position_B, model = torch.tensor(rows), CASES[name].model
    source = Draws(seed=1, split="test", batch=4).uniform("source", position_B, 5)
    reads = model.reads_source
    return Job(
        ids_BL=torch.full((len(rows), length), 3),
        free_BL=torch.ones(len(rows), length, dtype=torch.bool),
        position_B=position_B,
        draws=Draws(seed=0, split="sample", batch=4),
        objective=objective_of(name),
        model=model,
        network=Counted(network_of(name)),
        source_BS=(source * model.vocab_size).long() if reads else None,
        source_valid_BS=torch.ones(len(rows), 5, dtype=torch.bool) if reads else None,
    )


@torch.inference_mode()
def run(sampler: Sampler, job: Job) -> Tensor:
    return sampler.run(job)


def test_every_objective_names_a_sampler_that_suits_it() -> None:
    for name in CASES:
        assert (OBJECTIVES.resolve(name).sampler, name) in SUITED  # type: ignore[attr-defined]


def test_every_sampler_suits_something() -> None:
    assert {sampler for sampler, _ in SUITED} == set(SAMPLERS.names())


@pytest.mark.parametrize(("name", "objective"), SUITED)
def test_a_job_becomes_text_and_is_counted(name: str, objective: str) -> None:
    sampler, job, seen = SAMPLERS.build(name), job_of(objective, [0, 1, 2]), list[Tensor]()
    assert sampler.name == name
    job.on_step = seen.append
    drawn = run(sampler, job)
    assert drawn.shape == (3, 8)
    assert bool((drawn >= 0).all())
    assert bool((drawn < job.model.num_ids).all())
    assert not bool((drawn == job.model.mask).any())
    assert bool((job.ids_BL == 3).all())
    assert 1 <= len(seen) <= sampler.num_steps(8)
    assert torch.equal(seen[-1], drawn)
    assert isinstance(job.network, Counted)
    assert job.evaluations == job.network.asked > 0


@pytest.mark.parametrize(("name", "objective"), SUITED)
def test_only_the_draws_and_the_number_of_a_sample_decide(name: str, objective: str) -> None:
    sampler = SAMPLERS.build(name)
    together = run(sampler, job_of(objective, [0, 1, 2]))
    assert torch.equal(run(sampler, job_of(objective, [2, 0])), together[[2, 0]])
    assert len({tuple(row) for row in together.tolist()}) == 3
    other = job_of(objective, [0, 1, 2])
    other.draws = Draws(seed=1, split="sample", batch=4)
    assert not torch.equal(run(sampler, other), together)


@pytest.mark.parametrize(("name", "objective"), SUITED)
def test_what_is_given_stays_or_is_refused(name: str, objective: str) -> None:
    sampler, job, seen = SAMPLERS.build(name), job_of(objective, [0, 1]), list[Tensor]()
    job.free_BL = torch.arange(8) >= torch.tensor([[3], [5]])
    job.on_step = seen.append
    if "gaussian" in sampler.undoes:
        with pytest.raises(ValueError, match="leave every position free"):
            run(sampler, job)
        return
    drawn = run(sampler, job)
    for ids in (*seen, drawn):
        assert bool((ids[~job.free_BL] == 3).all())
    assert not bool((drawn == job.model.mask).any())


MASKED = [
    (name, objective)
    for name, objective in SUITED
    if objective_of(objective).noise == "mask" and not SAMPLERS.resolve(name).lays_out
]


@pytest.mark.parametrize(("name", "objective"), MASKED)
def test_only_texts_that_change_are_evaluated(name: str, objective: str) -> None:
    """Texts with 1, 6 and 3 blanks: together as alone, at the price of each alone."""
    sampler, free_BL = SAMPLERS.build(name), torch.arange(8) >= torch.tensor([[7], [2], [5]])
    job = job_of(objective, [0, 1, 2])
    job.free_BL = free_BL
    drawn, texts = run(sampler, job), 0
    for row in range(3):
        alone = job_of(objective, [row])
        alone.free_BL = free_BL[row : row + 1]
        assert torch.equal(run(sampler, alone)[0], drawn[row])
        assert isinstance(alone.network, Counted)
        texts += alone.network.texts
    assert isinstance(job.network, Counted)
    assert job.network.texts == texts


@pytest.mark.parametrize(("name", "objective"), sorted(set(PAIRS) - set(SUITED)))
def test_what_it_does_not_suit_is_refused_in_a_sentence(name: str, objective: str) -> None:
    told = sentence(SAMPLERS.build(name), objective)
    cls: Any = OBJECTIVES.resolve(objective)
    assert told.startswith(f"sampler {name} ")
    assert f"objective {objective} " in told
    if cls.noise not in SAMPLERS.build(name).undoes:
        assert f"objective {objective} is {cls.noise}: " in told
    assert told.endswith(f"its own sampler is {objective_of(objective).sampler}")
