"""How a run divides among ranks: sizes that follow from configuration and world."""

import torch

from configs.errors import UserError
from pretrain.config import RunConfig


def data_size(config: RunConfig, ranks: int | None) -> int:
    """D, from the configuration and the number of ranks (None: to be started here).

    Raises:
        UserError: where layout, ranks and batch do not divide one another, or the precision
            is not to be had on this device.
    """
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
    layout = config.parallel
    model_size = layout.tensor * layout.pipeline
    if ranks is None:
        ranks = model_size * (layout.data or 1)
    if ranks % model_size:
        raise UserError(
            f"{ranks} ranks do not divide by tensor x pipeline = {model_size}; "
            "start a multiple of it or change parallel.tensor and parallel.pipeline"
        )
    size = ranks // model_size
    if layout.data is not None and layout.data != size:
        raise UserError(
            f"parallel.data is {layout.data}, but {ranks} ranks make it {size}; "
            "leave it out or start as many ranks as the layout needs"
        )
    if config.global_batch % size:
        raise UserError(
            f"global_batch {config.global_batch} does not divide by the data-parallel size "
            f"{size}; choose a multiple of {size}"
        )
    share = config.global_batch // size
    if layout.micro_batch is not None and share % layout.micro_batch:
        raise UserError(
            f"each rank has {share} samples of the global batch, which does not divide by "
            f"parallel.micro_batch {layout.micro_batch}"
        )
    return size


def micro_batch(config: RunConfig, size: int) -> int:
    """Samples of a rank per forward pass."""
    return config.parallel.micro_batch or config.global_batch // size
