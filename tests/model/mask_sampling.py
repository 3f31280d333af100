"""Samples of masked diffusion from joints whose conditionals stand in for a network."""

from typing import Any

import torch
from asking import Denoise, Known
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.objectives.mdlm import Mdlm
from model.prediction import Answer, Read
from model.query import Query
from model.samplers import Job, Sampler
from model.schedules.loglinear import LogLinear


class Asked(Known):
    """Remembers what it was asked."""

    def __init__(self, logits: Denoise, asked: list[Query]) -> None:
        super().__init__(logits)
        self.asked = asked

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        self.asked.append(query)
        return super().ask(query, read)


def conditionals(joint: Any) -> Denoise:
    """The joint's p(x_i | visible tokens) as the answer to a query."""
    return lambda q: joint.denoise(q.ids_BL, q.level_BK, q.predict_mask_BL)


def states(
    joint: Any,
    ids_BL: Tensor,
    sampler: Sampler,
    *,
    position_B: Tensor | None = None,
    seed: int = 0,
    schedule: Any = None,
    asked: list[Query] | None = None,
    **fields: Any,
) -> tuple[list[Tensor], int]:
    """The ids after every step, and the number of network evaluations.

    Args:
        asked: where to put the queries. fields: further ones of the job.
    """
    after: list[Tensor] = []
    job = Job(
        ids_BL=ids_BL,
        free_BL=ids_BL == joint.mask,
        position_B=torch.arange(len(ids_BL)) if position_B is None else position_B,
        draws=Draws(seed=seed, split="sample", batch=len(ids_BL)),
        objective=Mdlm(schedule=schedule or LogLinear()),
        model=DiT(vocab_size=joint.vocab),
        network=Asked(conditionals(joint), [] if asked is None else asked),
        on_step=after.append,
        **fields,
    )
    assert torch.equal(sampler.run(job), after[-1])
    return after, job.evaluations


def masks(joint: Any, rows: int) -> Tensor:
    """So many texts without a visible token."""
    return torch.full((rows, joint.length), joint.mask)


def counts_of(joint: Any, ids_BL: Tensor) -> Tensor:
    """How often each sequence was drawn, in the order of ``joint.outcomes``."""
    code = (ids_BL * joint.vocab ** torch.arange(joint.length - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=joint.vocab**joint.length)
