"""Ancestral sampling for masked diffusion (Sahoo et al. 2024, section 4.1 and eq. 7).

From t to s a masked token stays masked with probability (1 - alpha_s) / (1 - alpha_t),
else it is drawn from the prediction; a visible token never changes. Which tokens are
revealed does not depend on the prediction, so it is drawn first: the head runs at those
positions only, and a step that reveals nothing costs no evaluation of the network. So this is the
paper's cached sampler (``ddpm_cache``) as well, but exact for networks that see the time too. Under
the log-linear schedule a text of L tokens takes T (1 - (1 - 1/T)^L) evaluations on average
(Zheng et al. 2024, section 4.1).
"""

from dataclasses import dataclass

from torch import Tensor

from model.samplers import Job, check_guidance, check_steps
from model.samplers._masked import MaskedSampler, reveal_evenly


@dataclass(frozen=True, kw_only=True)
class Ancestral(MaskedSampler):
    """Unmask tokens at random positions, in numbers that follow the noise schedule.

    Args:
        steps: maximum number of network evaluations.
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
        guidance: w of classifier-free guidance on the given text (Nie et al. 2025, LLaDA): tokens
            are drawn from p(x | given)^(1 + w) / p(x)^w, at twice the evaluations; 0 for none.
    """

    steps: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    guidance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        check_guidance(self.guidance)

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    def run(self, job: Job) -> Tensor:
        """Generate the ids; after the last step no free position is masked."""
        ids_BL = self.start(job)
        query = job.query(ids_BL, 1.0)
        for number, step in enumerate(reveal_evenly(job, job.free_BL, self.steps)):
            ids_BL = self.fill(job, query, ids_BL, step, number, self.guidance)
            job.on_step(ids_BL)
        return ids_BL
