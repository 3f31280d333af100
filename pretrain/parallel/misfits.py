"""Whether a model and a batch fit a parallel layout, and why not."""

from collections.abc import Iterator

from model.networks.config import ModelConfig
from pretrain.parallel.config import ParallelConfig


def misfits(model: ModelConfig, length: int, layout: ParallelConfig) -> list[str]:
    """Why a model, at sequences of ``length``, cannot run under a layout; empty if it can."""
    return list(each_misfit(model, length, layout))


def each_misfit(model: ModelConfig, length: int, layout: ParallelConfig) -> Iterator[str]:
    """Iterate over :func:`misfits`; those that depend least on the model come first."""
    if layout.tensor > 1:
        yield from _tensor_misfits(model, layout.tensor)
    if model.max_target_length is not None and length > model.max_target_length:
        yield (
            f"data.sequence_length ({length}) is more than the {model.max_target_length} "
            "positions that the model learns"
        )
    if layout.pipeline > 1 and layout.pipeline > (layers := model.total_layers):
        yield (
            f"parallel.pipeline {layout.pipeline} is more than the {layers} layers "
            "(embedding, blocks, head)"
        )
    if not layout.sequence_parallel:
        return
    if length % layout.tensor:
        yield (
            f"data.sequence_length ({length}) does not divide by parallel.tensor "
            f"{layout.tensor}, which parallel.sequence_parallel needs"
        )
    if model.dropout:
        yield (
            "model.dropout acts on replicated activations only; set it to 0 or "
            "parallel.sequence_parallel to false"
        )


def _tensor_misfits(model: ModelConfig, tensor: int) -> Iterator[str]:
    if model.num_heads % tensor:
        yield f"model.num_heads ({model.num_heads}) does not divide by parallel.tensor {tensor}"
    if model.num_rows % tensor:
        yield (f"parallel.tensor {tensor} does not divide the padded vocabulary ({model.num_rows})")
    if model.hidden_width % tensor:
        yield (
            f"parallel.tensor {tensor} does not divide the MLP's hidden width "
            f"({model.hidden_width})"
        )


def batch_misfits(batch: int, size: int, layout: ParallelConfig) -> Iterator[str]:
    """Why a global batch cannot be divided among ``size`` data-parallel ranks."""
    if batch % size:
        yield (
            f"global_batch {batch} does not divide by the data-parallel size "
            f"{size}; choose a multiple of {size}"
        )
    elif layout.micro_batch is not None and batch // size % layout.micro_batch:
        yield (
            f"parallel.micro_batch: each rank has {batch // size} samples of the global batch, "
            f"which does not divide by parallel.micro_batch {layout.micro_batch}"
        )
