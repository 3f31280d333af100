"""The input of a denoiser: noisy text, its noise level, and the positions to predict.

One class for every architecture, so that the trainer, the evaluator and the samplers pass
it on without looking inside. Fields that an architecture does not read stay None.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from model.networks.attention_layouts import FULL, AttentionLayout


@dataclass(frozen=True, kw_only=True)
class Query:
    """Input tensors of a denoiser.

    Discrete text is in ``ids_BL``. A continuous process noises embeddings, which only the
    first layer can compute: it forms ``signal * embedding(ids) + noise``.

    Args:
        ids_BL: int64 input ids.
        level_BK: float32 noise level, 0 clean and 1 prior; one per sample or per position.
        predict_mask_BL: bool, the M positions to predict; the last layer runs only there.
        valid_BL: bool, false at padding; None if there is none.
        layout: the attention mask.
        segment_BL: int64 document ids from 1 on; positions of different segments do not attend
            to one another; None for one segment.
        signal_BK: float32 scale of the embeddings in the noisy ones; per sample or per position.
        noise_BLE: float32 noise added to the scaled embeddings.
        self_cond_BLE: float32 self-conditioning input, an earlier prediction; zeros for none.
        source_BS: int64 ids of the text that the target is conditioned on.
        source_valid_BS: bool, false at its padding.
        memory_BSD: the encoded source, if already computed.
        x0_noise_BLE: float32 noise of the clean embeddings x_0; if given, the prediction
            includes the clean embeddings and rounding logits that the loss needs.
    """

    ids_BL: Tensor
    level_BK: Tensor
    predict_mask_BL: Tensor
    valid_BL: Tensor | None = None
    layout: AttentionLayout = FULL
    segment_BL: Tensor | None = None
    signal_BK: Tensor | None = None
    noise_BLE: Tensor | None = None
    self_cond_BLE: Tensor | None = None
    source_BS: Tensor | None = None
    source_valid_BS: Tensor | None = None
    memory_BSD: Tensor | None = None
    x0_noise_BLE: Tensor | None = None

    def rows(self, index_N: Tensor) -> Self:
        """The same for some of the samples: those with indices ``index_N``, int64."""
        return self.each_tensor(lambda name, x: x[index_N])

    def joined(self, other: Self) -> Self:
        """The samples of this query, and those of another one behind them."""
        return self.each_tensor(lambda name, x: torch.cat([x, getattr(other, name)]))

    def each_tensor(self, change: Callable[[str, Tensor], Tensor]) -> Self:
        """The query with every tensor that has an axis of samples changed."""
        changed: dict[str, Any] = {
            name: change(name, x)
            for name, x in vars(self).items()
            if isinstance(x, Tensor) and x.dim()
        }
        return replace(self, **changed)
