"""Memory-efficient cross-entropy: log p of one id per row, exact to float32.

PyTorch's cross-entropy keeps the log-softmax and two gradients of its size in float32 besides the
logits. Here only the logits are kept: a few rows at a time are converted to float32, in the
forward pass and again in the backward pass (cf. Wijmans et al. 2024, "Cut your losses").
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK = {"cpu": 2**20}
"""Logits converted to float32 at a time: on a CPU as many as fit caches and reused heap memory."""
_CHUNK_ELSEWHERE = 2**26


class LogProb(torch.autograd.Function):
    """Autograd function: ``(logits_MR, ids_M)`` to log p ``[M]`` float32."""

    @staticmethod
    def forward(ctx: Any, logits_MR: Tensor, ids_M: Tensor) -> Tensor:
        """Log-softmax and gather, by chunks of rows."""
        rows = rows_at_once(logits_MR)
        log_p_M = [
            torch.log_softmax(logits, dim=-1, dtype=torch.float32).gather(1, ids[:, None])
            for logits, ids in zip(logits_MR.split(rows), ids_M.split(rows), strict=True)
        ]
        ctx.save_for_backward(logits_MR, ids_M)
        return torch.cat(log_p_M).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor, None]:
        """(one-hot - softmax) times the gradient, in the dtype of the logits."""
        logits_MR, ids_M = ctx.saved_tensors
        grad_MR = torch.empty_like(logits_MR)
        rows = rows_at_once(logits_MR)
        parts = (x.split(rows) for x in (grad_MR, logits_MR, ids_M[:, None], grad_M[:, None]))
        for out, logits, ids, grad in zip(*parts, strict=True):
            change = torch.softmax(logits, dim=-1, dtype=torch.float32).mul_(-grad)
            out.copy_(change.scatter_add_(1, ids, grad))
        return grad_MR, None


def rows_at_once(logits_MR: Tensor) -> int:
    """Number of rows of logits that are converted to float32 at a time."""
    return max(1, _CHUNK.get(logits_MR.device.type, _CHUNK_ELSEWHERE) // logits_MR.shape[1])
