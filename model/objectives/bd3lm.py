"""BD3-LM: block diffusion, autoregressive over blocks and diffusion within (Arriola et al. 2025).

A text of B blocks is bounded block by block (eq. 8), each given the clean blocks before it:

    sum over b of  E_t  -alpha'(t) / (1 - alpha(t))  *  sum over masked positions of block b of
    -log p(x_0 | x_t of block b, clean blocks before b)

All blocks are predicted in one pass. The network reads the noisy text and its clean copy behind
it, whose positions are the same; who sees whom is :class:`Blocks`. Each
block has a time of its own. One block of the whole length is MDLM, and is computed as MDLM is;
blocks of one token make the exact likelihood of an autoregressive model.

Where there are several blocks, the first token of a text (BOS) is given in training, as it is in
the paper, and is not counted in the loss. The rates of masking may be drawn from an interval that
lowers the variance of the gradient (clipped schedules, section 5.2); the paper's search for the
interval as training goes is not done here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from model.draws import Draws
from model.needs import Need
from model.networks.attention_layouts import FULL, AttentionLayout, Blocks
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, Batch, Noisy, State
from model.objectives.mdlm import Mdlm
from model.processes.absorbing import some_of


@dataclass(frozen=True, kw_only=True)
class Bd3lm(Mdlm):
    """The objective of BD3-LM: MDLM's in each block.

    Args:
        block_size: positions of a block; the last one of a text may be shorter.
        schedule: alpha(t); the bound does not depend on it, the variance does.
        t_min, t_max: the interval that times are drawn from in training; under the log-linear
            schedule these are the rates of masking, the paper's beta and omega. The held-out
            bound is over all times, whatever they are.
        padding: as MDLM's, in each block: ``masked``, ``generated`` or ``visible``. A block sees
            no later one, so that visible padding tells a block only how it ends itself.
    """

    summary: ClassVar[str] = (
        "A denoiser that writes text block by block from left to right, filling in the [MASK]s of "
        "a block in any order (block diffusion, Arriola et al. 2025), with a key/value cache."
    )
    trial: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "objective": {"block_size": 4},
        "model": {"time_conditioning": True},
    }
    noise = "mask"
    sampler = "blockwise"

    block_size: int = 16
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size must be at least 1, not {self.block_size}")
        if not 0.0 <= self.t_min < self.t_max <= 1.0:
            raise ValueError(
                f"t_min and t_max must lie in [0, 1], the first below the second, not "
                f"{self.t_min} and {self.t_max}"
            )

    @property
    def needs(self) -> frozenset[Need]:
        """Ids at their own positions, and attention by blocks."""
        return frozenset({Need.IDS, Need.OWN_LAYOUT, Need.OWN_POSITION})

    def layout(self, length: int) -> AttentionLayout:
        """By blocks, where there are several."""
        return FULL if self.block_size >= length else Blocks(size=self.block_size)

    @property
    def expansion(self) -> int:
        """The noisy text and its clean copy."""
        return 2

    @property
    def head_share(self) -> float:
        """At masked positions of the noisy text."""
        return super().head_share / self.expansion

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """MDLM's, with one stratified t a block."""
        noisy = super().corrupt(batch, draws, model, state)
        if self._num_blocks(noisy.ids_BL.shape[1]) == 1:
            return noisy
        first_L = torch.arange(noisy.ids_BL.shape[1], device=noisy.ids_BL.device) == 0
        noisy = replace(
            noisy,
            ids_BL=torch.where(first_L, noisy.target_BL, noisy.ids_BL),
            predict_mask_BL=noisy.predict_mask_BL & ~first_L,
            over_BL=noisy.over_BL & ~first_L,
            tokens=noisy.count(),
        )
        return self._with_copy(noisy)

    def bound_corrupt(
        self,
        batch: Batch,
        free_BL: Tensor,
        draws: Draws,
        model: ModelConfig,
        state: State = NO_STATE,
    ) -> Noisy:
        """MDLM's, in each block: so many of its own hidden tokens are masked.

        Of one hidden token that one is masked, and nothing is left to chance.
        """
        noisy = super().bound_corrupt(batch, free_BL, draws, model, state)
        return noisy if self._num_blocks(free_BL.shape[1]) == 1 else self._with_copy(noisy)

    def _num_blocks(self, length: int) -> int:
        return -(-length // self.block_size)

    def _times(self, draws: Draws, position_B: Tensor, length: int) -> Tensor:
        num = self._num_blocks(length)
        t_BN = self.t_min + (self.t_max - self.t_min) * draws.times(position_B, num=num)
        return t_BN if num == 1 else self._at_positions(t_BN, length)

    def _some_of(
        self, hidden_BL: Tensor, draws: Draws, position_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        samples, length = hidden_BL.shape
        num = self._num_blocks(length)
        if num == 1:
            return super()._some_of(hidden_BL, draws, position_B)
        missing = num * self.block_size - length
        hidden, uniform = (
            F.pad(x, (0, missing)).view(samples * num, self.block_size)
            for x in (hidden_BL, draws.uniform("mask", position_B, length))
        )
        times = draws.times(position_B, num=num).view(-1, 1)
        masked, *others = some_of(hidden, times, uniform)
        t_BL, weight_BL = (self._at_positions(x.view(samples, num), length) for x in others)
        return masked.view(samples, -1)[:, :length], t_BL, weight_BL

    def _at_positions(self, x_BN: Tensor, length: int) -> Tensor:
        """What blocks have, at each of their positions."""
        return x_BN.repeat_interleave(self.block_size, dim=1)[:, :length]

    def _with_copy(self, noisy: Noisy) -> Noisy:
        """The clean text behind the noisy one: at level 0, and nothing of it is predicted."""
        clean_BL = noisy.target_BL
        none_BL, level_BL = (
            torch.zeros_like(noisy.predict_mask_BL),
            torch.zeros_like(noisy.level_BK),
        )

        def behind(x_BL: Tensor, y_BL: Tensor) -> Tensor:
            return torch.cat([x_BL, y_BL], dim=1)

        def twice(x_BL: Tensor | None) -> Tensor | None:
            return None if x_BL is None else behind(x_BL, x_BL)

        return replace(
            noisy,
            ids_BL=behind(noisy.ids_BL, clean_BL),
            level_BK=behind(noisy.level_BK, level_BL),
            predict_mask_BL=behind(noisy.predict_mask_BL, none_BL),
            valid_BL=twice(noisy.valid_BL),
            segment_BL=twice(noisy.segment_BL),
            layout=self.layout(clean_BL.shape[1]),
            target_BL=behind(clean_BL, clean_BL),
            weight_BK=behind(noisy.weight_BK, level_BL),
            over_BL=behind(noisy.over_BL, none_BL),
        )
