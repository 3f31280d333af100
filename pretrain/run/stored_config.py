"""Configurations that a run or checkpoint holds, as the version that wrote them meant them.

A key that a former version did not know gets the meaning that it had there, and not the
default of today: a checkpoint stays readable, and a run whose configuration means something
else today is told so (:func:`pretrain.config.differences`) and does not silently go on.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from configs.load import Plugin, validate
from pretrain.config import RunConfig

_OBJECTIVES = Plugin("model.objectives")


def stored_config(plain: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration of these plain data; UserError as :func:`configs.load.validate`."""
    return validate(RunConfig, {**plain, **_padding(plain)}, where)


def _padding(plain: Mapping[str, Any]) -> dict[str, Any]:
    """``objective.padding``, before which padding was always visible."""
    objective, data = plain.get("objective"), plain.get("data")
    if isinstance(objective, str):
        objective = {"name": objective}
    if not isinstance(objective, dict) or not isinstance(data, dict):
        return {}
    try:
        known = _OBJECTIVES.resolve(objective.get("name"))
    except ValueError:
        return {}  # validation says so
    had_none = "padding" in {field.name for field in fields(known)}
    if not had_none or data.get("packing") != "pad":
        return {}
    return {"objective": {"padding": "visible", **objective}}
