"""Layouts of weights, one family of models per file."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from configs.build import Plugin
from configs.errors import UserError
from tools.convert.format import Layout
from tools.convert.tensors import Tensors


def _layout(name: str) -> Layout:
    layout: Layout = getattr(import_module(f"{__name__}.{name}"), name.capitalize())()
    return layout


LAYOUTS = {name: _layout(name) for name in Plugin(__name__).names()}
"""By name. The folder is the registry: a file ``name.py`` has a class ``Name``."""


def named(name: str) -> Layout:
    """The layout of that name; UserError with the names there are."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def recognised(config: Mapping[str, Any], tensors: Tensors) -> Layout:
    """The layout of some weights.

    Raises:
        UserError: they are of none that is known here.
    """
    for layout in LAYOUTS.values():
        if layout.recognises(config, tensors):
            return layout
    kind = config.get("model_type") or ", ".join(config.get("architectures") or [])
    what = f"architecture {kind}" if kind else "no architecture that is known here"
    raise UserError(
        f"{tensors.origin}: {what}; weights come in from {', '.join(LAYOUTS)}, and --layout "
        "names one of them"
    )
