"""Autoregressive (left-to-right) sampling, one token at a time, with a key/value cache.

The network reads one new token per step; keys and values of earlier tokens are cached (Shazeer
2019, section 3). All rows advance together, column by column, whatever is given in each.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.networks.attention_layouts import AttentionLayout, Cached, Causal
from model.prediction import Prediction
from model.query import Query
from model.samplers import Job, Sampler, check_temperature, check_top_p


@dataclass(frozen=True, kw_only=True)
class LeftToRight(Sampler):
    """Generate tokens from left to right, each sampled given all tokens before it.

    Given text must come before the generated text. The only exception is the last position: the
    EOS that ends a window of a stream. It carries no information, since every window ends with it.

    Args:
        temperature: sampling temperature of tokens; 0 takes the likeliest.
        top_k: sample among this many of the likeliest ids; by default among all.
        top_p: nucleus sampling (Holtzman et al. 2020): sample among the likeliest ids with this
            total probability, before temperature; 1 for all ids.
        cache: keep a key/value cache; without it every step recomputes the text so far. The ids
            are the same.
    """

    undoes = ("none",)
    lays_out = True

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    cache: bool = True

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")
        check_top_p(self.top_p)

    def check_free(self, free_BL: Tensor, objective: Any) -> None:
        """Raise ValueError if a position after a free one is given, except the last."""
        behind_BL = free_BL.cumsum(dim=1) > 0
        if bool((behind_BL & ~free_BL)[:, :-1].any()):
            raise ValueError(
                "a model that writes from left to right sees nothing of the text behind a blank: "
                "write the prompt before the text, with one blank at its end"
            )

    def num_steps(self, length: int) -> int:
        """Upper bound: one per column."""
        return length

    def run(self, job: Job) -> Tensor:
        """Generate the ids, up to the last column free in any row; see :meth:`check_free`."""
        self.check_free(job.free_BL, job.objective)
        ids_BL = torch.where(job.free_BL, job.model.mask, job.ids_BL)
        read = 0
        for column in job.free_BL.any(dim=0).nonzero()[:, 0].tolist():
            ids_BL = self._write(job, ids_BL, read, column)
            job.on_step(ids_BL)
            read = column + 1 if self.cache else 0
        return ids_BL

    def _write(self, job: Job, ids_BL: Tensor, read: int, column: int) -> Tensor:
        """Sample the tokens of one column; columns before ``read`` are cached."""
        free_B = job.free_BL[:, column]
        predict_mask_BL = torch.zeros_like(job.free_BL[:, read : column + 1])
        predict_mask_BL[:, -1] = free_B
        layout: AttentionLayout = Cached(past=read, causal=True) if self.cache else Causal()
        start_B1 = torch.full_like(ids_BL[:, :1], job.model.mask)
        query = Query(
            ids_BL=torch.cat([start_B1, ids_BL], dim=1)[:, read : column + 1],
            level_BK=torch.zeros(len(ids_BL), 1, device=ids_BL.device),
            predict_mask_BL=predict_mask_BL,
            layout=layout,
        )
        drawn_M = job.ask(query, partial(self._drawn, job, free_B, column))
        after_BL = ids_BL.clone()
        after_BL[free_B, column] = drawn_M
        return after_BL

    def _drawn(self, job: Job, free_B: Tensor, column: int, prediction: Prediction) -> Tensor:
        """Sample a token for each row in which the column is free, ``[M]``."""
        logits = prediction.logits
        assert logits is not None
        if self.top_k is not None:
            logits = logits.top_k(self.top_k)
        if self.top_p < 1.0:
            logits = logits.top_p(self.top_p)
        position_M = job.position_B[free_B]
        column_M = torch.full_like(position_M, column)
        return logits.sample(job.draws, "token", position_M, column_M, self.temperature)
