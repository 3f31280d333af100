"""Batches of text and their losses under MDLM, for its tests."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from configs.load import Plugin
from model.architectures.dit import DiT
from model.draws import Draws
from model.objectives import Noisy
from model.objectives.mdlm import Mdlm
from model.verification import texts

VOCAB = 7

MODEL = DiT(vocab_size=VOCAB, width=2, num_heads=1)

PLUGIN = Plugin("model.schedules")

SCHEDULES = [PLUGIN.build(name) for name in PLUGIN.names()]


def draws(batch: int, seed: int = 0) -> Draws:
    return Draws(seed=seed, split="test", batch=batch)


def batch(tokens: Tensor, valid: Tensor | None = None, start: int = 0) -> dict[str, Tensor]:
    return {
        "tokens": tokens,
        "valid": torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid,
        "position": start + torch.arange(len(tokens)),
    }


def some_tokens(rows: int, length: int, vocab: int = VOCAB) -> Tensor:
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(rows))


def row_losses(denoise: Callable[..., Tensor], noisy: Noisy) -> Tensor:
    """The loss of every sample, ``[B]`` float64."""
    logits = denoise(noisy.ids_BL, noisy.level_BK, noisy.predict_mask_BL)
    return texts.row_losses(Mdlm().bound_losses, noisy, logits)


def constant(logits_V: Tensor) -> Callable[..., Tensor]:
    padded = torch.nn.functional.pad(logits_V, (0, 1), value=-torch.inf)
    return lambda ids, level, where: padded.expand(int(where.sum()), -1)


def senseless(joint: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A network that is wrong: its logits depend on all it sees, in no sensible way."""

    def denoise(ids_BL: Tensor, level_BK: Tensor, predict_mask_BL: Tensor) -> Tensor:
        code_B = (ids_BL * 5 ** torch.arange(ids_BL.shape[1])).sum(1)
        place_LV = torch.arange(ids_BL.shape[1] * joint.vocab).view(-1, joint.vocab)
        logits_BLV = torch.sin(code_B[:, None, None] + 1.7 * place_LV).double()
        return torch.nn.functional.pad(logits_BLV[predict_mask_BL], (0, 1), value=-torch.inf)

    return denoise
