"""What oracles have in common: batches of told ids, an even predictor, losses by text."""

import torch
from torch import Tensor

from model.networks.config import ModelConfig
from model.objectives import Batch, Noisy


def batch_of(tokens_BL: Tensor) -> Batch:
    """Whole texts, at stream positions from 0 on."""
    return {
        "tokens": tokens_BL,
        "valid": torch.ones_like(tokens_BL, dtype=torch.bool),
        "position": torch.arange(len(tokens_BL)),
    }


def uniform_logits(noisy: Noisy, model: ModelConfig) -> Tensor:
    """Of the predicted positions ``[M, ids]``: every id alike, and never [MASK]."""
    logits_MR = torch.zeros(int(noisy.predict_mask_BL.sum()), model.num_ids)
    logits_MR[:, model.mask] = -torch.inf
    return logits_MR


def by_text(losses_M: Tensor, noisy: Noisy) -> Tensor:
    """The sum over the positions of each sample, ``[B]`` float64."""
    zeros_B = torch.zeros(len(noisy.ids_BL), dtype=torch.float64)
    return zeros_B.index_add(0, noisy.predict_mask_BL.nonzero()[:, 0], losses_M.double())
