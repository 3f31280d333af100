"""What is asked of a denoiser: noisy text at a level, and where a prediction is wanted.

One class for every architecture, so that the trainer, the evaluator and the samplers pass
it on without looking inside. What an architecture does not read stays None.
"""

from dataclasses import dataclass

from torch import Tensor

from model.networks.attention_layouts import FULL, AttentionLayout


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a denoiser reads.

    Discrete text is in ``ids_BL``. A continuous process noises embeddings, which only the
    first layer can make: it forms ``signal * embedding(ids) + noise``.

    Args:
        ids_BL: int64 input ids.
        level_BK: float32 noise level, 0 clean and 1 prior; one for a sample, or for each position.
        predict_mask_BL: bool, the M positions that are predicted; the last layer runs only there.
        valid_BL: bool, no padding; None where all is valid.
        layout: which positions attend to which.
        segment_BL: int64 from 1 on, positions of different segments do not see one another;
            None for one segment.
        signal_BK: float32, of the embeddings in the noisy ones; one or L likewise.
        noise_BLE: float32, the rest of them.
        self_cond_BLE: float32, an earlier prediction to go on from; zeros for none.
        source_BS: int64 ids of the text that the target is conditioned on.
        source_valid_BS: bool, its padding excluded.
        memory_BSD: the encoded source, where it is known already.
        x0_noise_BLE: float32 noise of the clean embeddings themselves; with it the
            prediction comes with what a loss compares it with.
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
