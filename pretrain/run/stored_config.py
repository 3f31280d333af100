"""Translates configurations that older versions stored in runs and checkpoints.

A key that an older version did not know gets the value that reproduces its behavior, and not the
default of today: a checkpoint stays readable, and a run whose configuration means something
else today is refused (:func:`pretrain.config.differences`) instead of silently going on.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from configs.load import Plugin, validate
from pretrain.config import RunConfig

_OBJECTIVES = Plugin("model.objectives")


def stored_config(plain: Mapping[str, Any], where: str) -> RunConfig:
    """Validate a stored configuration; raises UserError as :func:`configs.load.validate` does."""
    return validate(RunConfig, {**plain, **_padding(plain)}, where)


def _padding(plain: Mapping[str, Any]) -> dict[str, Any]:
    """``objective.padding``: in versions without this key padding was always visible."""
    objective, data = plain.get("objective"), plain.get("data")
    if isinstance(objective, str):
        objective = {"name": objective}
    if not isinstance(objective, dict) or not isinstance(data, dict):
        return {}
    try:
        known = _OBJECTIVES.resolve(objective.get("name"))
    except ValueError:
        return {}  # validation reports it
    had_none = "padding" in {field.name for field in fields(known)}
    if not had_none or data.get("packing") != "pad":
        return {}
    return {"objective": {"padding": "visible", **objective}}
