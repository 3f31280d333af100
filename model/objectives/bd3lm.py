"""BD3-LM: block diffusion, autoregressive over blocks and diffusion within (Arriola et al. 2025).

The NELBO is a sum over the B blocks of a text (eq. 8), each given the clean blocks before it:

    sum over b of  E_t  -alpha'(t) / (1 - alpha(t))  *  sum over masked positions of block b of
    -log p(x_0 | x_t of block b, clean blocks before b)

All blocks are predicted in one pass. The network reads the noisy text followed by its clean copy,
with the same position ids; the attention mask is :class:`Blocks`. Each block has its own time. One
block of the full length is MDLM, and is computed as MDLM is; blocks of one token give the exact
likelihood of an autoregressive model.

With several blocks, the first token of a text (BOS) is given in training, as in the paper, and is
not counted in the loss. Masking rates may be drawn from an interval that lowers the variance of the
gradient (clipped schedules, section 5.2); the paper's search for the interval during training is
not implemented.
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
from model.processes.masked_bound import bound_mask, bound_times


@dataclass(frozen=True, kw_only=True)
class Bd3lm(Mdlm):
    """The objective of BD3-LM (block diffusion): MDLM's in each block.

    Args:
        block_size: positions per block; the last block of a text may be shorter.
        schedule: alpha(t); the bound does not depend on it, the variance does.
        t_min, t_max: interval of the times drawn in training; under the log-linear schedule
            these are the masking rates, the paper's beta and omega. The held-out bound always
            integrates over all times.
        padding: as in MDLM, per block: ``masked``, ``generated`` or ``visible``. A block does not
            attend to later ones, so visible padding reveals only where the block itself ends.
        estimator: of the held-out bound, as in MDLM, per block.
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
        if self.num_steps is not None and self.t_max < 1.0:
            raise ValueError(f"num_steps must be none with t_max {self.t_max}, below 1")
        super().__post_init__()

    @property
    def needs(self) -> frozenset[Need]:
        """Ids, unshifted output, and the objective's own block attention."""
        return frozenset({Need.IDS, Need.OWN_LAYOUT, Need.OWN_POSITION})

    def layout(self, length: int) -> AttentionLayout:
        """Block attention if there are several blocks, otherwise full."""
        return FULL if self.block_size >= length else Blocks(size=self.block_size)

    @property
    def expansion(self) -> int:
        """2: the noisy text and its clean copy."""
        return 2

    @property
    def head_share(self) -> float:
        """The share of masked positions, halved by the clean copy."""
        return super().head_share / self.expansion

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """Mask tokens as in MDLM, with one stratified t per block."""
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
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        """As MDLM's, per block: mask a random number of the block's hidden tokens.

        A single hidden token is always masked where the number is drawn first, so that no
        randomness is left.
        """
        noisy = super().bound_corrupt(batch, draws, model, state)
        return noisy if self._num_blocks(batch["tokens"].shape[1]) == 1 else self._with_copy(noisy)

    def _num_blocks(self, length: int) -> int:
        return -(-length // self.block_size)

    def _times(self, draws: Draws, position_B: Tensor, length: int) -> tuple[Tensor, Tensor]:
        num = self._num_blocks(length)
        t_BN, weight_BN = self._at_times(draws.times(position_B, num=num), self.t_max)
        if num == 1:
            return t_BN, weight_BN
        return self._at_positions(t_BN, length), self._at_positions(weight_BN, length)

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
        time_N1 = bound_times(self.estimator, draws, position_B, num).view(-1, 1)
        masked, *others = bound_mask(self.estimator, hidden, time_N1, uniform)
        t_BL, weight_BL = (self._at_positions(x.view(samples, num), length) for x in others)
        return masked.view(samples, -1)[:, :length], t_BL, weight_BL

    def _at_positions(self, x_BN: Tensor, length: int) -> Tensor:
        """Repeat values per block at each of its positions."""
        return x_BN.repeat_interleave(self.block_size, dim=1)[:, :length]

    def _with_copy(self, noisy: Noisy) -> Noisy:
        """Append the clean copy to the noisy text: at level 0 and not predicted."""
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
