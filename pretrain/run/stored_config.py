"""Translates configurations that older versions stored in runs and checkpoints.

A key that an older version did not know gets the value that reproduces its behavior, and not the
default of today: a checkpoint stays readable, and a run whose configuration means something
else today is refused (:func:`pretrain.config.differences`) and does not silently go on. Nor
do keys that have moved since make a checkpoint unreadable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from configs.load import Plugin, read_yaml, validate
from model.networks.config import ModelConfig
from pretrain.config import RunConfig

_OBJECTIVES = Plugin("model.objectives")
_ARCHITECTURES = Plugin("model.architectures", default="dit")

LAST_KEY = "wandb"
"""Of every version's config.yaml, which is written in the order of the fields."""

_NOT_OF = {
    "dit": ("norm_bias", "num_positions"),
    "transformer": ("conditioning_width", "time_conditioning", "time_input"),
    "encoder_decoder": (
        "attention", "attention_bias", "causal_annealing_steps", "head_bias", "head_size",
        "hide_padding", "norm_bias", "num_kv_heads", "num_positions", "qk_norm", "qkv_bias",
        "shifted_output", "tied_head", "time_conditioning", "time_input",
    ),
}  # fmt: skip
"""By architecture, keys that every model had when one dataclass held them all: there they were
refused unless off, or had no effect."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    model: Annotated[ModelConfig, _ARCHITECTURES]


def stored_config(plain: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration of these plain data; UserError as :func:`configs.load.validate`."""
    return validate(RunConfig, {**plain, **_model(plain), **_padding(plain)}, where)


def stored_model(plain: Mapping[str, Any], where: str) -> ModelConfig:
    """The architecture in the ``model`` block of a run's plain data; UserError likewise."""
    return validate(_Holder, _model({"model": plain}), where).model


def read_file(path: Path) -> dict[str, Any]:
    """One YAML file; the config.yaml of a run may be of a former version, a user's may not."""
    plain = read_yaml(path)
    return plain | _model(plain) if LAST_KEY in plain else plain


def _model(plain: Mapping[str, Any]) -> dict[str, Any]:
    """``model``, as written before architectures had names: ``block`` and ``seq2seq`` told them."""
    block = plain.get("model")
    if not isinstance(block, Mapping):
        return {}
    if not {"block", "seq2seq"} & set(block):
        return {"model": block}
    found = dict(block)
    shape, kind = found.pop("seq2seq", None), found.pop("block", "adaln")
    if isinstance(shape, Mapping):
        name = "encoder_decoder"
        if found.get("tied_head") and found.get("embedding_std") is None:
            found["embedding_std"] = found["width"] ** -0.5  # its only effect there
        found |= shape
    elif kind == "adaln":
        name = "dit"
    else:
        name = "transformer"
        found["norm_first"] = kind == "pre_norm"
    kept = {key: value for key, value in found.items() if key not in _NOT_OF[name]}
    return {"model": {"name": name, **kept}}


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
