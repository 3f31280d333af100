"""Ancestral sampling that masks tokens again, and so can correct them (Wang et al. 2025, ReMDM).

From t to s a visible generated token is masked again with probability sigma_t, and a masked one is
revealed with probability (alpha_s - (1 - sigma_t) alpha_t) / (1 - alpha_t) (eq. 6), so that a share
1 - alpha_s is masked at every time s, whatever sigma_t is (theorem 3.1). It is at most
sigma_max = min(1, (1 - alpha_s) / alpha_t) (eq. 7), which is 0 in the last step.

The paper's schedules of sigma_t (section 4.1): ``cap`` is min(eta, sigma_max), ``rescale`` is eta
times sigma_max; each may be shared out by confidence. When tokens are masked again (section 4.2):
always, between two times (ReMDM-switch), or while alpha stands still (ReMDM-loop). Each step masks
anew, so that more steps revise more tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from model.prediction import Prediction
from model.samplers import Job, check_steps
from model.samplers._masked import MaskedSampler, ask_texts, even_times


@dataclass(frozen=True, kw_only=True)
class Remasking(MaskedSampler):
    """Unmask tokens at random positions, and mask some of them again for correction.

    Args:
        steps: maximum number of network evaluations.
        eta: how many tokens are masked again per step, in [0, 1]; 0 is ancestral sampling.
        schedule: the probability of a visible token: at most eta (``cap``), or the share eta of
            the largest possible one (``rescale``).
        by_confidence: share the probability of one token out over all visible ones of a text, by a
            softmax of minus the probability with which each was last drawn (ReMDM-conf; the
            release has schedule=rescale eta=1); masked tokens are revealed as in ancestral
            sampling.
        remask_from: time, from 1 at the start to 0, at which tokens begin to be masked again:
            t_switch of ReMDM-switch, t_on of ReMDM-loop.
        remask_until: time at which that ends, t_off.
        hold_alpha: share of visible tokens that is reached at ``remask_from`` and kept until
            ``remask_until`` (ReMDM-loop); by default it follows the noise schedule.
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
    """

    steps: int = 64
    eta: float = 0.02
    schedule: Literal["cap", "rescale"] = "cap"
    by_confidence: bool = False
    remask_from: float = 1.0
    remask_until: float = 0.0
    hold_alpha: float | None = None
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")
        begin, end, held = self.remask_from, self.remask_until, self.hold_alpha
        if not 0.0 <= end < 1.0:
            raise ValueError(f"remask_until must lie in [0, 1), not {end}")
        if not end < begin <= 1.0:
            raise ValueError(f"remask_from must lie in ({end}, 1], not {begin}")
        if held is not None and not 0.0 < held < 1.0:
            raise ValueError(f"hold_alpha must lie in (0, 1), not {held}")
        if held is not None and not (begin < 1.0 and end > 0.0):
            raise ValueError(
                "hold_alpha must have time before and after it, such as the paper's "
                "remask_from=0.55 remask_until=0.05 hold_alpha=0.9"
            )

    def num_steps(self, length: int) -> int:
        """Exactly ``steps``."""
        return self.steps

    def run(self, job: Job) -> Tensor:
        """Generate the ids; after the last step no free position is masked."""
        ids_BL = self.start(job)
        query, length = job.query(ids_BL, 1.0), ids_BL.shape[1]
        p_BL = torch.zeros(ids_BL.shape, device=ids_BL.device)
        for number, (level, stay, again) in enumerate(self._plan(job, ids_BL.device)):
            masked_BL = job.free_BL & (ids_BL == job.model.mask)
            visible_BL = job.free_BL & ~masked_BL
            uniform_BL = job.draws.uniform(f"reveal/{number}", job.position_B, length)
            reveal_BL = masked_BL & (uniform_BL >= stay)
            uniform_BL = job.draws.uniform(f"remask/{number}", job.position_B, length)
            again_BL = visible_BL & (uniform_BL < again * self._shares(p_BL, visible_BL))
            if bool(reveal_BL.any()):
                level_B1 = level.float().expand(len(ids_BL), 1)
                query = replace(query, ids_BL=ids_BL, level_BK=level_B1, predict_mask_BL=reveal_BL)
                ids_M, p_M = ask_texts(job, query, partial(self._drawn, job, reveal_BL, number))
                ids_BL = ids_BL.masked_scatter(reveal_BL, ids_M)
                p_BL = p_BL.masked_scatter(reveal_BL, p_M)
            ids_BL = torch.where(again_BL, job.model.mask, ids_BL)
            job.on_step(ids_BL)
        return ids_BL

    def _plan(self, job: Job, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each step the level of its query, and two probabilities.

        They are that of a masked token to stay so, and that of a visible one to be masked again;
        the latter by confidence is their sum over a text.
        """
        schedule = job.objective.schedule.exact()
        times = even_times(self.steps).to(device)
        levels = self._levels(times, schedule)
        for time, t, s in zip(times, levels, levels[1:], strict=False):
            alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
            again = self._remasked(alpha_t, alpha_s) * (
                self.remask_until < time <= self.remask_from
            )
            of_masked = torch.zeros_like(again) if self.by_confidence else again
            yield t, (1 - alpha_s - of_masked * alpha_t) / (1 - alpha_t), again

    def _levels(self, times: Tensor, schedule: Any) -> Tensor:
        """Times of the noise schedule: those of the sampler, unless it stands still in between."""
        if self.hold_alpha is None:
            return times
        held = schedule.time(torch.tensor(self.hold_alpha, dtype=times.dtype, device=times.device))
        before = ((times - self.remask_from) / (1 - self.remask_from)).clamp(min=0.0)
        after = (1 - times / self.remask_until).clamp(min=0.0)
        return held + (1 - held) * before - held * after

    def _remasked(self, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
        """sigma_t, the probability with which a visible token is masked again from t to s."""
        # At t = 1 nothing is visible, and alpha_t is 0.
        most = ((1 - alpha_s) / alpha_t).nan_to_num(nan=0.0).clamp(max=1.0)
        return most.clamp(max=self.eta) if self.schedule == "cap" else self.eta * most

    def _shares(self, p_BL: Tensor, visible_BL: Tensor) -> Tensor:
        """What sigma_t is multiplied with at each visible position, float64 ``[B, L]``."""
        if not self.by_confidence:
            return torch.ones_like(p_BL, dtype=torch.float64)
        return (-p_BL.double()).masked_fill(~visible_BL, -torch.inf).softmax(dim=1)

    def _drawn(
        self, job: Job, reveal_BL: Tensor, number: int, prediction: Prediction
    ) -> tuple[Tensor, Tensor]:
        """A token for each position, and its probability in the prediction, ``[M]`` each."""
        ids_M = self.draw(job, reveal_BL, f"token/{number}", prediction)
        assert prediction.logits is not None
        return ids_M, prediction.logits.log_prob(ids_M).exp()
