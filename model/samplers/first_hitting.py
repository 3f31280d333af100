"""First-hitting sampling for masked diffusion (Zheng et al. 2024, section 4.2 and eq. 11).

Ancestral sampling in the limit of many steps: tokens are revealed one by one, in random order, each
at the time at which the next one is revealed. Of n masked tokens that is the largest of n uniform
mask rates. L tokens take L evaluations of the network, and no two are drawn independently of
one another: for true conditionals the samples have exactly the joint distribution.
"""

from dataclasses import dataclass

from torch import Tensor

from model.samplers import Job
from model.samplers._masked import MaskedSampler, reveal_one_by_one


@dataclass(frozen=True, kw_only=True)
class FirstHitting(MaskedSampler):
    """Unmask one token at a time, in random order, at its own noise level.

    Args:
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def num_steps(self, length: int) -> int:
        """One per free position."""
        return length

    def run(self, job: Job) -> Tensor:
        """Generate the ids, in as many evaluations as the text with most blanks has."""
        ids_BL = self.start(job)
        query = job.query(ids_BL, 1.0)
        for number, step in enumerate(reveal_one_by_one(job, job.free_BL)):
            ids_BL = self.fill(job, query, ids_BL, step, number)
            job.on_step(ids_BL)
        return ids_BL
