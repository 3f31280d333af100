"""Megatron-core's tensor-parallel layers and functions, imported without their warnings.

Only tensor parallelism needs them, and the import takes seconds: nothing imports this
module before a layout with T > 1 is built.
"""

import warnings
from functools import cache
from typing import Any

import torch.distributed as dist
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core import ModelParallelConfig, parallel_state
    from megatron.core.tensor_parallel import (
        ColumnParallelLinear,
        RowParallelLinear,
        VocabParallelEmbedding,
        copy_to_tensor_model_parallel_region,
        reduce_from_tensor_model_parallel_region,
        vocab_parallel_cross_entropy,
    )

__all__ = ["ColumnParallelLinear", "RowParallelLinear", "VocabParallelEmbedding"]


def use(group: dist.ProcessGroup) -> None:
    """Make ``group`` the tensor-parallel group of Megatron's functions.

    Its own initialisation makes some twenty process groups of which tensor parallelism
    needs this one; each has threads of its own, which outlive it.
    """
    parallel_state._TENSOR_MODEL_PARALLEL_GROUP = group


def _group() -> dist.ProcessGroup:
    return parallel_state.get_tensor_model_parallel_group()


@cache
def settings() -> Any:
    """Megatron's settings of our layers: built in float32 on the CPU, and not initialized."""
    return ModelParallelConfig(
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
    )


def no_initialization(weight: Tensor) -> None:
    """Required by Megatron, and never called where ``perform_initialization`` is off."""


def linear_arguments() -> dict[str, Any]:
    """The arguments that our column- and row-parallel linear layers share."""
    return {"config": settings(), "init_method": no_initialization}


def copy_forward_sum_backward(x: Tensor) -> Tensor:
    """Identity; the gradient is summed over the tensor axis."""
    same: Tensor = copy_to_tensor_model_parallel_region(x, group=_group())
    return same


def sum_forward_copy_backward(x: Tensor) -> Tensor:
    """The sum over the tensor axis; the gradient passes as it is."""
    total: Tensor = reduce_from_tensor_model_parallel_region(x, group=_group())
    return total


def cross_entropy(logits_MR: Tensor, ids_M: Tensor) -> Tensor:
    """-log p ``[M]`` float32, of logits split over the tensor axis."""
    losses_M: Tensor = vocab_parallel_cross_entropy(logits_MR, ids_M)
    return losses_M
