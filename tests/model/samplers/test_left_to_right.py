"""Sampling from left to right, with a cache that changes nothing, from networks and known laws."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from asking import configured
from torch import Tensor

from model.draws import Draws
from model.networks.attention_layouts import FULL, Cached
from model.networks.base import Network
from model.networks.build import build
from model.networks.initialize import initial_value
from model.objectives.autoregressive import Autoregressive
from model.prediction import Answer, Read
from model.query import Query
from model.samplers import Job
from model.samplers.left_to_right import LeftToRight

ChiSquare = Callable[[Tensor, Tensor], float]
SMALL: dict[str, Any] = {"vocab_size": 9, "width": 16, "num_layers": 2, "num_heads": 2}
KINDS: dict[str, dict[str, Any]] = {
    "adaln": {},
    "pre_norm": {"name": "transformer", "num_kv_heads": 1, "qk_norm": True, "mlp": "swiglu"},
    "post_norm": {"name": "transformer", "norm_first": False, "num_positions": 10},
    "hidden": {"hide_padding": True},
}
LENGTH = 10
WHOLE = torch.ones(6, LENGTH, dtype=torch.bool)
PLACE = torch.arange(LENGTH)


def network(**changes: Any) -> Network:
    """Of which no weight is zero."""
    found = build(configured(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for parameter, called in found.parameter_names().items():
            parameter.add_(initial_value(f"noise.{called}.q.weight", parameter.shape, 1, 0.3))
    return found


class Watched:
    """A network whose queries are kept."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.queries: list[Query] = []

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        self.queries.append(query)
        return self.network.ask(query, read)

    def encode(self, query: Query) -> Query:
        return query


def job_of(network: Any, free_BL: Tensor = WHOLE, ids: int = 4) -> Job:
    shape = free_BL.shape
    return Job(
        ids_BL=torch.full(shape, ids),
        free_BL=free_BL,
        position_B=torch.arange(shape[0]),
        draws=Draws(seed=2, split="sample", batch=8),
        objective=Autoregressive(),
        model=network.config if isinstance(network, Network) else network.network.config,
        network=network,
    )


@torch.inference_mode()
def run(sampler: LeftToRight, job: Job) -> Tensor:
    return sampler.run(job)


FREE = {
    "all": WHOLE,
    "prompts": (PLACE >= 4).expand(6, -1),
    "ragged": torch.tensor([[1], [2], [3], [5], [8], [9]]) <= PLACE,
    "framed": (PLACE >= 1).expand(6, -1) & (PLACE < LENGTH - 1),
    "apart": (PLACE == 9) | ((PLACE > 1) & (torch.arange(6)[:, None] == 0)),
}


@pytest.mark.parametrize("free", FREE)
@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_changes_no_id(kind: str, free: str) -> None:
    model = network(**KINDS[kind])
    cached, again = job_of(model, FREE[free]), job_of(model, FREE[free])
    found = run(LeftToRight(), cached)
    assert torch.equal(found, run(LeftToRight(cache=False), again))
    assert bool((found[~FREE[free]] == 4).all())
    assert len({tuple(row) for row in found.tolist()}) > 1
    columns = int(FREE[free].any(dim=0).sum())
    assert cached.evaluations == again.evaluations == columns


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.6}]
)
def test_nor_does_it_with_other_settings(settings: dict[str, Any]) -> None:
    model = network()
    found = run(LeftToRight(**settings), job_of(model))
    assert torch.equal(found, run(LeftToRight(**settings, cache=False), job_of(model)))
    assert not torch.equal(found, run(LeftToRight(), job_of(model)))


def test_with_the_cache_each_column_is_read_once() -> None:
    watched = Watched(network())
    run(LeftToRight(), job_of(watched, FREE["prompts"]))
    queries = watched.queries
    assert [query.ids_BL.shape[1] for query in queries] == [5, 1, 1, 1, 1, 1]
    assert [query.layout for query in queries] == [
        Cached(past=past, causal=True) for past in (0, 5, 6, 7, 8, 9)
    ]
    assert all(int(query.predict_mask_BL.sum()) == 6 for query in queries)  # the head: once a token


def test_a_run_begins_without_the_cache_of_another() -> None:
    model = network()
    wanted = run(LeftToRight(), job_of(model))
    run(LeftToRight(), job_of(model, WHOLE[:2], ids=7))
    assert torch.equal(run(LeftToRight(), job_of(model)), wanted)
    # What attends otherwise in between drops what was kept.
    query = Query(
        ids_BL=torch.zeros(1, 2, dtype=torch.int64),
        level_BK=torch.zeros(1, 1),
        predict_mask_BL=torch.ones(1, 2, dtype=torch.bool),
        layout=FULL,
    )
    with torch.no_grad():
        model(query)
        with pytest.raises(KeyError):
            model(replace(query, layout=Cached(past=2)))


def test_greedy_text_is_the_likeliest_token_given_all_before_it() -> None:
    model = network()
    found = run(LeftToRight(temperature=0.0), job_of(model, FREE["prompts"]))
    batch = {
        "tokens": found,
        "valid": WHOLE,
        "position": torch.arange(6),
    }
    noisy = Autoregressive().corrupt(batch, job_of(model).draws, model.config)
    with torch.no_grad():
        best = model(noisy)["logits"].argmax(dim=-1).view(6, LENGTH)
    assert torch.equal(found[:, 4:], best[:, 4:])


@pytest.mark.parametrize("given", [0, 1])
def test_texts_follow_the_law_that_the_objective_scores(chi_square: ChiSquare, given: int) -> None:
    """The network's own: the nats of every text, and how often it is drawn."""
    model = network(vocab_size=3)
    tokens = torch.tensor(list(itertools.product(range(3), repeat=3)))
    free_NL = (torch.arange(3) >= given).expand(tokens.shape)
    batch = {
        "tokens": tokens,
        "valid": torch.ones_like(free_NL),
        "position": torch.arange(len(tokens)),
    }
    objective, rows = Autoregressive(), 3000
    noisy = objective.bound_corrupt(batch | {"free": free_NL}, job_of(model).draws, model.config)
    with torch.no_grad():
        nats_M = model.ask(noisy, lambda found: objective.bound_losses(found, noisy))
    law = (-nats_M.double().view(len(tokens), -1).sum(dim=1)).exp()
    if given:
        law = law * (tokens[:, 0] == 2)
    assert float(law.sum()) == pytest.approx(1, abs=1e-6)
    drawn = run(LeftToRight(), job_of(model, free_NL[:1].repeat(rows, 1), ids=2))
    counts = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27)
    assert chi_square(counts, law / law.sum()) < 4.5


def test_top_k_and_top_p_leave_the_unlikely_out() -> None:
    model = network()
    one = run(LeftToRight(temperature=0.0), job_of(model))
    assert torch.equal(run(LeftToRight(top_k=1), job_of(model)), one)
    assert torch.equal(run(LeftToRight(top_p=1e-6), job_of(model)), one)


def test_text_behind_a_blank_is_refused_but_for_the_frame() -> None:
    model = network()
    framed = run(LeftToRight(), job_of(model, FREE["framed"]))
    open_end = run(LeftToRight(), job_of(model, (PLACE >= 1).expand(6, -1)))
    assert torch.equal(framed[:, :-1], open_end[:, :-1])  # nothing follows from the last position
    for hole in (PLACE != 5, PLACE < 8):
        with pytest.raises(ValueError, match="write the prompt before the text"):
            run(LeftToRight(), job_of(model, hole.expand(6, -1)))
