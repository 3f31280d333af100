"""What the samplers of masked diffusion share: when tokens are revealed, and how they are drawn.

Which tokens are revealed, and when, does not depend on the prediction. So it is drawn first, and
the head runs at those positions only: once per token over a complete run.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from model.categorical import Categorical
from model.prediction import Answer, Prediction, Read
from model.processes.absorbing import stay_masked
from model.query import Query
from model.samplers import Job, Sampler, check_temperature, check_top_p

Step = tuple[Tensor, Tensor]
"""Positions to reveal, bool ``[B, L]``, and the noise level of the query, ``[B, 1]``."""


def even_times(steps: int) -> Tensor:
    """Times evenly spaced from 1 to 0, ``[steps + 1]`` float64."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def reveal_evenly(job: Job, hidden_BL: Tensor, steps: int) -> Iterator[Step]:
    """Steps evenly spaced in time (Sahoo et al. 2024, section 4.1 and eq. 7).

    From t to s a hidden token stays masked with probability (1 - alpha_s) / (1 - alpha_t).
    """
    schedule = job.objective.schedule.exact()
    for number, (t, s) in enumerate(pairwise(even_times(steps).to(hidden_BL.device))):
        stay = stay_masked(schedule.alpha(s), schedule.alpha(t))
        uniform_BL = job.draws.uniform(f"reveal/{number}", job.position_B, hidden_BL.shape[1])
        reveal_BL = hidden_BL & (uniform_BL >= stay)
        hidden_BL = hidden_BL & ~reveal_BL
        yield reveal_BL, t.float().expand(len(hidden_BL), 1)


def reveal_one_by_one(job: Job, hidden_BL: Tensor) -> Iterator[Step]:
    """One hidden token of each text per step, at the time at which the next one is revealed.

    Mask rates at which the tokens are revealed are i.i.d. uniform; the next one is the largest
    that remains. It is distributed as in Zheng et al. 2024, proposition 4.1, which draws the
    largest of those below the last one.
    """
    schedule = job.objective.schedule.exact()
    rate_BL = job.draws.uniform("reveal", job.position_B, hidden_BL.shape[1])
    rate_BL = rate_BL.masked_fill(~hidden_BL, -1.0)
    order_BL = rate_BL.argsort(dim=1, descending=True)
    for column_B1 in order_BL[:, : int(hidden_BL.sum(dim=1).max())].split(1, dim=1):
        reveal_BL = hidden_BL & torch.zeros_like(hidden_BL).scatter(1, column_B1, True)
        level_B1 = schedule.time(1 - rate_BL.gather(1, column_B1).clamp(min=0.0))
        yield reveal_BL, level_B1.float()


def ask_texts(job: Job, query: Query, read: Read[Answer], guidance: float = 0.0) -> Answer:
    """Apply ``read`` to the prediction for the texts with positions to predict, and only for them.

    With guidance it is moved away from what it is without the given text (Nie et al. 2025, LLaDA,
    appendix A.2): log p is that given the text plus ``guidance`` times its difference from that of
    the same ids with all given positions masked. This is another evaluation, in the same pass.
    """
    row_N = query.predict_mask_BL.any(dim=1).nonzero()[:, 0]
    query = query.rows(row_N)
    if guidance == 0.0:
        return job.ask(query, read)
    alone = replace(query, ids_BL=torch.where(job.free_BL[row_N], query.ids_BL, job.model.mask))
    return job.ask(query.joined(alone), partial(_read_guided, guidance, read), texts=2)


def _read_guided(guidance: float, read: Read[Answer], prediction: Prediction) -> Answer:
    logits = prediction.logits
    assert logits is not None
    given, alone = (Categorical(x, logits.rows) for x in logits.logits_MR.chunk(2))
    guided = given.guided(alone, guidance + 1.0, "log_p")
    return read(replace(prediction, logits=guided))


class MaskedSampler(Sampler):
    """Base of samplers that draw ids at [MASK]s; subclasses are dataclasses with these settings.

    Attributes:
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020), before temperature.
    """

    undoes = ("mask",)

    temperature: float
    top_p: float

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_top_p(self.top_p)

    def start(self, job: Job) -> Tensor:
        """The job's ids with [MASK] at every free position, ``[B, L]``."""
        return torch.where(job.free_BL, job.model.mask, job.ids_BL)

    def draw(self, job: Job, where_BL: Tensor, kind: str, prediction: Prediction) -> Tensor:
        """Sample a token at each of these positions, ``[M]``; ``kind`` names the draws."""
        logits = prediction.logits
        assert logits is not None
        if self.top_p < 1.0:
            logits = logits.top_p(self.top_p)
        row_M, column_M = where_BL.nonzero(as_tuple=True)
        return logits.sample(job.draws, kind, job.position_B[row_M], column_M, self.temperature)

    def fill(
        self,
        job: Job,
        query: Query,
        ids_BL: Tensor,
        step: Step,
        number: int,
        guidance: float = 0.0,
    ) -> Tensor:
        """Draw the tokens that step ``number`` reveals, by an evaluation of the texts they are in.

        There is none if the step reveals nothing.
        """
        reveal_BL, level_B1 = step
        if not bool(reveal_BL.any()):
            return ids_BL
        query = replace(query, ids_BL=ids_BL, level_BK=level_B1, predict_mask_BL=reveal_BL)
        drawn = partial(self.draw, job, reveal_BL, f"token/{number}")
        return ids_BL.masked_scatter(reveal_BL, ask_texts(job, query, drawn, guidance))
