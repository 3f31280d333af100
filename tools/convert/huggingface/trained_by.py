"""The objective of exported weights, by their config.json."""

from collections.abc import Mapping
from typing import Any

from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear
from tools.convert.huggingface.method import OBJECTIVE, OBJECTIVES, SAMPLERS

SCHEDULES: dict[str, Any] = {"loglinear": LogLinear, "cosine": Cosine}


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
        settings["schedule"] = SCHEDULES[schedule.pop("name")](**schedule)
    return OBJECTIVES[name](**settings)


def sampler_class(name: Any) -> Any:
    """The class of a sampler.

    Raises:
        ValueError: there is none of that name beside the weights.
    """
    if name not in SAMPLERS:
        raise ValueError(f"there is no sampler {name}; choose {' or '.join(SAMPLERS)}")
    return SAMPLERS[name]
