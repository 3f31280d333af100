"""DeepSpeed's settings of a run, and the limits among them by which the planner counts memory."""

from typing import TYPE_CHECKING, Any

from pretrain.parallel.batch import micro_batch

if TYPE_CHECKING:
    from pretrain.config import RunConfig

MAX_LIVE_PARAMETERS = 1_000_000_000
"""Elements that ZeRO 3 gathers at a time at most, DeepSpeed's default."""


def reduce_bucket_size(num_parameters: int) -> int:
    """Gradient elements that are reduced together, on a rank with ``num_parameters`` elements.

    DeepSpeed's default is made for the largest models and allocated for the smallest too.
    """
    return min(num_parameters, 500_000_000)


def deepspeed_settings(config: "RunConfig", data_size: int, num_parameters: int) -> dict[str, Any]:
    """The dictionary that ``deepspeed.initialize`` takes as ``config``.

    Args:
        data_size: D, data-parallel ranks.
        num_parameters: elements of all parameters that this rank holds.
    """
    found: dict[str, Any] = {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch(config, data_size),
        "gradient_clipping": config.optim.clip,
        "zero_optimization": {
            "stage": max(1, config.parallel.zero_stage),
            "stage3_param_persistence_threshold": config.parallel.param_persistence_threshold,
            "reduce_bucket_size": reduce_bucket_size(num_parameters),
        },
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
    if config.precision == "bf16":
        # Each gradient goes into its fp32 sum at once: none is kept twice, and those of
        # parameters that a pipeline's loss function uses are not lost.
        found["bf16"] = {"enabled": True, "immediate_grad_update": True}
        found["data_types"] = {"grad_accum_dtype": "fp32"}
    elif config.precision == "fp16":
        found["fp16"] = {"enabled": True}
    return found
