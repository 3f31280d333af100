"""Checks of ``model.frozen`` that need the names of parameters, before anything is built."""

from collections.abc import Iterator

from model.networks.config import ModelConfig
from model.networks.frozen import is_frozen
from pretrain.planner.partition import span_of
from pretrain.planner.stages import on_meta


def misfits(model: ModelConfig, length: int, pipeline: int) -> Iterator[str]:
    """Patterns that match no parameter, and pipeline stages without a trained parameter.

    Args:
        length: of the sequences, by which the pipeline is balanced.
    """
    names = list(on_meta(model).parameter_names().values())
    for pattern in model.frozen:
        if not any(is_frozen(name, [pattern]) for name in names):
            yield (
                f"model.frozen: no parameter's name is like '{pattern}'; names are "
                f"{names[0]}, ..., {names[-1]}"
            )
    trained = {int(name.split(".")[1]) for name in names if not is_frozen(name, model.frozen)}
    for stage in range(pipeline):
        layers = span_of(model, length, pipeline, stage)
        if trained.isdisjoint(layers):
            where = f" in layers {layers.start} to {layers.stop - 1}, a stage of the pipeline"
            yield f"model.frozen leaves nothing to train{where if pipeline > 1 else ''}"
