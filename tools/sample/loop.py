"""The sampling loop: every sample of a command, in batches, by all data-parallel ranks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.draws import Draws
from model.samplers import Job, Sampler
from pretrain.checkpoint.weights import Loaded
from pretrain.run.progress import Counter

Start = Mapping[str, Tensor]
"""Fields of a :class:`model.samplers.Job`: ``ids_BL`` and ``free_BL``, and the source."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The ids of one sample, and evaluations of the network for it (NFE)."""

    ids: list[int]
    evaluations: int


def draw_samples(
    loaded: Loaded,
    sampler: Sampler,
    start: Callable[[Sequence[int]], Start],
    *,
    order: Sequence[int],
    length: int,
    seed: int,
    batch: int,
    end: int | None = None,
) -> list[Drawn]:
    """All samples by their numbers, on every rank; the same whatever the batch and the ranks.

    Args:
        start: what the samples of these numbers start from.
        order: the numbers, from 0 on, in the order in which they are put into batches.
        length: positions of a sample.
        end: the id by which texts end, if the model decides where.
    """
    total, share = len(order), loaded.share
    draws = Draws(seed=seed, split="sample", batch=total)
    mine: list[tuple[int, list[int], int]] = []
    steps = total * sampler.num_steps(length)
    with (
        torch.inference_mode(),
        Counter(steps, "step", "sample", shown=loaded.is_first) as bar,
    ):
        for first in range(0, total, batch)[share.rank :: share.size]:
            numbers = order[first : first + batch]
            job = Job(
                **start(numbers),
                position_B=torch.tensor(numbers, device=loaded.device),
                draws=draws,
                objective=loaded.config.objective,
                model=loaded.config.model,
                network=loaded.network,
                state=loaded.state,
                end=end,
                on_step=lambda ids_BL: bar.update(len(ids_BL) * share.size),
            )
            rows = sampler.run(job).tolist()
            mine += [(n, ids, job.evaluations) for n, ids in zip(numbers, rows, strict=True)]
    gathered = sorted(sample for samples in loaded.gather(mine) for sample in samples)
    return [Drawn(ids=ids, evaluations=evaluations) for _, ids, evaluations in gathered]
