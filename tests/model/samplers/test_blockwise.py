"""Sampling by blocks: the joint that is asked for, and a cache that changes no id."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from asking import configured
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.networks.attention_layouts import Blocks, Cached
from model.networks.base import Network
from model.networks.build import build
from model.networks.initialize import initial_value
from model.objectives.bd3lm import Bd3lm
from model.prediction import Answer, Prediction, Read
from model.query import Query
from model.samplers import Job
from model.samplers.ancestral import Ancestral
from model.samplers.blockwise import Blockwise

ChiSquare = Callable[[Tensor, Tensor], float]


class Conditionals:
    """In the place of a network: a joint's conditionals given what the layout lets a block see."""

    def __init__(self, joint: Any) -> None:
        self.joint = joint

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        if not hasattr(self, "kept"):
            self.kept = query.ids_BL[:, :0]
        layout, num = query.layout, query.ids_BL.shape[1]
        if isinstance(layout, Cached):
            past, block, asked = layout.past, query.ids_BL, query.predict_mask_BL
            before = self.kept[:, :past]
            if layout.keep:
                assert not (block == self.joint.mask).any()
                assert (query.level_BK == 0).all()
                self.kept = torch.cat([before, block], dim=1)
        else:
            assert isinstance(layout, Blocks)
            past = (num // 2 - 1) // layout.size * layout.size
            here = slice(past, num // 2)
            block, asked = query.ids_BL[:, here], query.predict_mask_BL[:, here]
            before = query.ids_BL[:, num // 2 :][:, :past]
        later = self.joint.length - past - block.shape[1]
        seen = torch.cat([before, block], dim=1)
        seen = torch.nn.functional.pad(seen, (0, later), value=self.joint.mask)
        where = torch.nn.functional.pad(asked, (past, later))
        logits = self.joint.denoise(seen, query.level_BK, where)
        return read(Prediction(logits=Categorical(logits)))

    def encode(self, query: Query) -> Query:
        return query


def drawn(joint: Any, rows: int, size: int, sampler: Blockwise, given: Tensor | None = None):
    ids = torch.full((rows, joint.length), joint.mask) if given is None else given
    job = Job(
        ids_BL=ids,
        free_BL=ids == joint.mask,
        position_B=torch.arange(rows),
        draws=Draws(seed=0, split="sample", batch=rows),
        objective=Bd3lm(block_size=size),
        model=DiT(vocab_size=joint.vocab),
        network=Conditionals(joint),
    )
    return sampler.run(job), job.evaluations


def counts_of(joint: Any, ids_BL: Tensor) -> Tensor:
    code = (ids_BL * joint.vocab ** torch.arange(joint.length - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=joint.vocab**joint.length)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_token_at_a_time_the_joint_is_sampled(
    three_tokens: Any, chi_square: ChiSquare, size: int, cache: bool
) -> None:
    found, evaluations = drawn(three_tokens, 3000, size, Blockwise(cache=cache))
    assert chi_square(counts_of(three_tokens, found), three_tokens.p.flatten()) < 4.5
    # One for each token, and with a cache one more for each block but the last.
    assert evaluations == 3 + cache * (-(-3 // size) - 1)


@pytest.mark.parametrize(
    ("size", "steps", "together"), [(1, 1, 0.0), (2, 1, 1.0), (2, 2, 0.5), (2, 50, 0.02)]
)
def test_tokens_that_a_step_reveals_together_are_independent(
    two_tokens: Any, chi_square: ChiSquare, size: int, steps: int, together: float
) -> None:
    found, _ = drawn(two_tokens, 4000, size, Blockwise(steps=steps))
    apart = torch.outer(two_tokens.p.sum(1), two_tokens.p.sum(0)).flatten()
    law = together * apart + (1 - together) * two_tokens.p.flatten()
    assert chi_square(counts_of(two_tokens, found), law) < 4.5


def test_a_prompt_stays_and_conditions_what_follows(
    three_tokens: Any, chi_square: ChiSquare
) -> None:
    start = torch.full((3000, 3), three_tokens.mask)
    start[:, 0] = 2
    found, evaluations = drawn(three_tokens, 3000, 1, Blockwise(), start)
    assert (found[:, 0] == 2).all()
    assert evaluations == 1 + 2 + 1
    law = torch.zeros_like(three_tokens.p)
    law[2] = three_tokens.p[2] / three_tokens.p[2].sum()
    assert chi_square(counts_of(three_tokens, found), law.flatten()) < 4.5


# -- networks ---------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "adaln": {"conditioning_width": 8, "time_conditioning": True},
    "llama": {"name": "transformer", "num_kv_heads": 1, "qk_norm": True},
    "learned": {"name": "transformer", "norm_first": False, "num_positions": 24},
}


def network(kind: str) -> Network:
    """None of its weights is zero: where branches are closed nothing can be told apart."""
    sizes = {"vocab_size": 20, "width": 16, "num_layers": 2, "num_heads": 2}
    found = build(configured(**{**sizes, **KINDS[kind]})).eval()
    with torch.no_grad():
        for parameter, called in found.parameter_names().items():
            parameter.add_(initial_value(f"noise.{called}.q.weight", parameter.shape, 1, 0.3))
        # What is seen decides, neither [MASK] itself nor the draws alone.
        found.embedding.weight[found.config.mask] = 0.0
        found.output.head.weight.mul_(3.0)
    return found


def job_of(model: Network, size: int, length: int, prompts: list[int]) -> Job:
    """A sample behind so many given tokens, for each of the prompts."""
    rows = torch.arange(len(prompts))
    seed = Draws(seed=0, split="sample", batch=len(prompts))
    return Job(
        ids_BL=(20 * seed.uniform("prompt", rows, length)).long(),
        free_BL=torch.arange(length) >= torch.tensor(prompts)[:, None],
        position_B=rows,
        draws=seed,
        objective=Bd3lm(block_size=size),
        model=model.config,
        network=model,
    )


@torch.inference_mode()
def ids(sampler: Any, job: Job) -> Tensor:
    found: Tensor = sampler.run(job)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("steps", [None, 3])
def test_the_cache_changes_no_id(kind: str, size: int, steps: int | None) -> None:
    model, sampler = network(kind), Blockwise(steps=steps)
    job = job_of(model, size, 14, [0, 0, 1, 3, 5, 8])
    cached, again = (ids(replace(sampler, cache=x), job) for x in (True, False))
    assert torch.equal(cached, again)
    assert torch.equal(cached[~job.free_BL], job.ids_BL[~job.free_BL])
    assert len(cached.unique(dim=0)) == 6
    # It is the finished text that later blocks see, and they do see it.
    other = replace(job, ids_BL=(job.ids_BL + 1) % 20)
    assert not torch.equal(ids(sampler, other)[3:, 8:], cached[3:, 8:])


@pytest.mark.parametrize("size", [9, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_one_block_is_ancestral_sampling(kind: str, size: int) -> None:
    job = job_of(network(kind), size, 9, [0, 2, 0])
    found, truth = (ids(sampler(steps=5), job) for sampler in (Blockwise, Ancestral))
    assert torch.equal(found, truth)


def test_few_of_the_likeliest_are_few() -> None:
    """The smallest share leaves the likeliest token, as temperature 0 does."""
    job = job_of(network("adaln"), 4, 10, [0, 0])
    greedy = ids(Blockwise(temperature=0.0), job)
    assert torch.equal(ids(Blockwise(top_p=1e-9), job), greedy)
    assert not torch.equal(ids(Blockwise(), job), greedy)


@pytest.mark.parametrize("steps", [None, 1, 4])
def test_steps_that_reveal_nothing_cost_no_evaluation(steps: int | None) -> None:
    job, seen = job_of(network("adaln"), 4, 10, [5]), list[Tensor]()
    job.on_step = seen.append
    ids(Blockwise(steps=steps), job)
    pairs = zip([torch.where(job.free_BL, 20, job.ids_BL), *seen], seen, strict=False)
    changed = sum(not torch.equal(before, after) for before, after in pairs)
    assert job.evaluations == changed + 2  # two finished blocks are read
    assert changed <= (5 if steps is None else 2 * steps)
    for before, after in pairwise(seen):
        assert torch.equal(before[before != 20], after[before != 20])


def test_text_in_later_blocks_is_refused_but_for_the_frame() -> None:
    job = job_of(network("adaln"), 4, 10, [1])
    job.free_BL[:, 9] = False
    assert ids(Blockwise(), job)[0, 9] == job.ids_BL[0, 9]
    job.free_BL[:, 3] = False  # in a block it is seen from both sides
    assert ids(Blockwise(), job)[0, 3] == job.ids_BL[0, 3]
    job.free_BL[:, 4] = False
    with pytest.raises(ValueError, match="sees nothing of the text in later blocks"):
        ids(Blockwise(), job)


def test_what_is_given_whole_is_left_alone() -> None:
    job = job_of(network("adaln"), 4, 10, [10])
    assert torch.equal(ids(Blockwise(), job), job.ids_BL)
    assert job.evaluations == 0
