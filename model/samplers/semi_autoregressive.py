"""Semi-autoregressive sampling of texts of any length (Sahoo et al. 2024, section 4.2).

A window of the trained length is denoised; then it moves on by ``stride`` positions, where
the tokens that it still covers are given and those that follow are masked, and is denoised again.
Positions count from the start of the window, so that the network sees none that it was not trained
on. A new token sees the window minus stride tokens before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.networks.config import ModelConfig
from model.query import Query
from model.samplers import Job, Sampler, check_steps
from model.samplers._masked import MaskedSampler, ask_texts, reveal_evenly


@dataclass(frozen=True, kw_only=True)
class SemiAutoregressive(MaskedSampler):
    """Write a text longer than those of training, by a window that moves from left to right.

    Within a window it is ancestral sampling. A model that decides where texts end stops a text at
    the end of the window in which it does.

    Args:
        steps: maximum number of network evaluations per window.
        window: positions that the network sees at once; by default as many as in training.
        stride: positions by which the window moves, at most the window; by default half of it.
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
    """

    any_length = True

    steps: int = 64
    window: int | None = None
    stride: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        for name, value in {"window": self.window, "stride": self.stride}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise ValueError(
                f"stride must be at most the window of {self.window}, not {self.stride}"
            )

    def suits(self, objective: Any, model: ModelConfig) -> None:
        """See :meth:`Sampler.suits`; the network needs positions for the window."""
        super().suits(objective, model)
        most = model.max_target_length
        if most is not None and self.window is not None and self.window > most:
            raise ValueError(
                f"window must be at most {most}, for which the model has positions, not "
                f"{self.window}"
            )

    def trained_on(self, length: int) -> Sampler:
        """The sampler with a window of the trained length, unless it was given one."""
        return replace(self, window=length) if self.window is None else self

    def num_steps(self, length: int) -> int:
        """Upper bound: ``steps`` per window, if no text ends early."""
        return self.steps * len(list(self.windows(length)))

    def windows(self, length: int) -> Iterator[slice]:
        """The windows of a text from left to right; the last one may be shorter."""
        size = min(self.window or length, length)
        stride = self.stride or max(size // 2, 1)
        for start in range(0, length - size + stride, stride):
            yield slice(start, min(start + size, length))

    def run(self, job: Job) -> Tensor:
        """Generate the ids, until all texts are complete or have ended (:attr:`Job.end`)."""
        ids_BL = self.start(job)
        query = job.query(ids_BL, 1.0)
        for window in self.windows(ids_BL.shape[1]):
            hidden_BL = torch.zeros_like(job.free_BL)
            hidden_BL[:, window] = (job.free_BL & (ids_BL == job.model.mask))[:, window]
            if bool(hidden_BL.any()):
                ids_BL = self._write(job, query, ids_BL, window, hidden_BL)
        return ids_BL

    def _write(
        self, job: Job, query: Query, ids_BL: Tensor, window: slice, hidden_BL: Tensor
    ) -> Tensor:
        """Denoise the hidden positions of a window."""
        valid_BL = None if query.valid_BL is None else query.valid_BL[:, window]
        query = replace(query, valid_BL=valid_BL)
        for number, (reveal_BL, level_B1) in enumerate(reveal_evenly(job, hidden_BL, self.steps)):
            if bool(reveal_BL.any()):
                query = replace(
                    query,
                    ids_BL=ids_BL[:, window],
                    level_BK=level_B1,
                    predict_mask_BL=reveal_BL[:, window],
                )
                drawn = partial(self.draw, job, reveal_BL, f"token/{number}")
                ids_BL = ids_BL.masked_scatter(reveal_BL, ask_texts(job, query, drawn))
            if number == self.steps - 1:
                ids_BL = self._ended(job, ids_BL)
            job.on_step(ids_BL)
        return ids_BL

    def _ended(self, job: Job, ids_BL: Tensor) -> Tensor:
        """Fill what is left of texts that have ended, after all that was given, with the end."""
        if job.end is None:
            return ids_BL
        open_BL = job.free_BL if job.valid_BL is None else job.free_BL | ~job.valid_BL
        tail_BL = job.free_BL & open_BL.flip(1).long().cumprod(dim=1).flip(1).bool()
        ended_B1 = (tail_BL & (ids_BL == job.end)).any(dim=1, keepdim=True)
        return torch.where(ended_B1 & tail_BL & (ids_BL == job.model.mask), job.end, ids_BL)
