"""Checks that tensors and settings are those of a format; all problems are listed at once."""

from collections.abc import Mapping
from typing import Any

import torch

from configs.errors import UserError
from model.networks.build import build
from model.networks.config import ModelConfig
from tools.convert.tensors import Shape, Tensors


def parameter_shapes(model: ModelConfig) -> dict[str, Shape]:
    """The shape of every parameter of a network, by canonical name."""
    with torch.device("meta"):
        names = build(model).parameter_names()
    return {name: tuple(parameter.shape) for parameter, name in names.items()}


def require(found: Tensors, wanted: Mapping[str, Shape], *, spare: tuple[str, ...] = ()) -> None:
    """UserError that lists all tensors that are missing, extra, or of another shape.

    Args:
        spare: endings of names that may be there besides (buffers).
    """
    problems = [f"{name} is missing" for name in wanted if name not in found.shapes]
    problems += [
        f"{name} is not part of this architecture"
        for name in found.shapes
        if name not in wanted and not name.endswith(spare or ("\0",))
    ]
    problems += [
        f"{name} has shape {list(found.shapes[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found.shapes and tuple(found.shapes[name]) != tuple(shape)
    ]
    if problems:
        raise UserError(f"{found.origin} does not fit:\n  " + "\n  ".join(problems))


def settings(config: Mapping[str, Any], names: tuple[str, ...], origin: str) -> list[Any]:
    """Entries of a foreign config.json; UserError that lists those that are missing."""
    missing = [name for name in names if config.get(name) is None]
    if missing:
        raise UserError(f"{origin}: its config.json lacks {', '.join(missing)}")
    return [config[name] for name in names]


def refuse(origin: str, problems: list[str]) -> None:
    """UserError with all the reasons why a format cannot hold a model, if there are any."""
    if problems:
        raise UserError(f"{origin} has no place there:\n  " + "\n  ".join(problems))
