"""Architecture and objective of exported weights, by their config.json."""

from collections.abc import Mapping
from typing import Any

from model.networks.config import ModelConfig
from tools.convert.huggingface.method import (
    ARCHITECTURES,
    OBJECTIVE,
    OBJECTIVES,
    SAMPLERS,
    SCHEDULES,
)


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """The architecture that the fields stand for, in which lists are tuples as JSON has them.

    Raises:
        ValueError: the code beside the weights is of another.
    """
    settings = dict(fields)
    name = settings.pop("name", next(iter(ARCHITECTURES)))
    if name not in ARCHITECTURES:
        raise ValueError(f"this is the code of {', '.join(ARCHITECTURES)}, not of {name}")
    frozen = tuple(settings.pop("frozen", ()))
    config: ModelConfig = ARCHITECTURES[name](**settings, frozen=frozen)
    return config


def objective_of(block: Mapping[str, Any] | None) -> Any:
    """The objective that a block of settings stands for.

    Raises:
        ValueError: the code beside the weights is of another.
    """
    settings = dict(block or {})
    name = settings.pop("name", OBJECTIVE)
    if name not in OBJECTIVES:
        raise ValueError(f"this is the code of objective {', '.join(OBJECTIVES)}, not of {name}")
    if isinstance(settings.get("schedule"), Mapping):
        schedule = dict(settings["schedule"])
        kind = schedule.pop("name")
        if kind not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise ValueError(f"this is the code of schedule {known}, not of {kind}")
        settings["schedule"] = SCHEDULES[kind](**schedule)
    return OBJECTIVES[name](**settings)


def sampler_class(name: Any) -> Any:
    """The class of a sampler.

    Raises:
        ValueError: there is none of that name beside the weights.
    """
    if name not in SAMPLERS:
        raise ValueError(f"there is no sampler {name}; choose {' or '.join(SAMPLERS)}")
    return SAMPLERS[name]
