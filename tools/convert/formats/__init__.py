"""Weight formats, one family of models per file."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from configs.build import Plugin
from configs.errors import UserError
from tools.convert.format import Format
from tools.convert.tensors import Tensors


def _build(name: str) -> Format:
    found: Format = getattr(import_module(f"{__name__}.{name}"), name.capitalize())()
    return found


FORMATS = {name: _build(name) for name in Plugin(__name__).names()}
"""By name. The folder is the registry: a file ``name.py`` has a class ``Name``."""


def named(name: str) -> Format:
    """The format of that name; UserError with the names there are."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


def recognised(config: Mapping[str, Any], tensors: Tensors) -> Format:
    """The format of some weights.

    Raises:
        UserError: they are of none that is known here.
    """
    for known in FORMATS.values():
        if known.recognises(config, tensors):
            return known
    kind = config.get("model_type") or ", ".join(config.get("architectures") or [])
    what = f"architecture {kind}" if kind else "no architecture that is known here"
    raise UserError(
        f"{tensors.origin}: {what}; weights come in from {', '.join(FORMATS)}, and --format "
        "names one of them"
    )
