"""A model from a checkpoint, whole and on one device, for sampling, evaluation and export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from configs.errors import UserError
from configs.load import validate
from model.denoiser import Denoiser
from pretrain.checkpoint import store
from pretrain.config import RunConfig

Which = Literal["ema", "raw"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A denoiser in evaluation mode and where it comes from."""

    denoiser: Denoiser
    config: RunConfig
    checkpoint: Path
    step: int
    tokens_seen: int


def find(where: Path) -> Path:
    """The checkpoint itself, or the newest one of a run directory.

    Raises:
        UserError: where there is none.
    """
    if (where / store.MANIFEST).exists():
        return where
    newest, problems = store.newest(where / "checkpoints")
    if newest is None:
        detail = "; ".join(problems) or "train it first with `python -m pretrain`"
        raise UserError(f"{where} is neither a checkpoint nor a run with one: {detail}")
    return newest


def load_denoiser(where: Path, which: Which, device: torch.device | str = "cpu") -> Loaded:
    """The averaged (``ema``) or last (``raw``) fp32 weights of a run or checkpoint."""
    path = find(where)
    reader = store.Reader(path)
    config = validate(RunConfig, reader.state["config"], where=f"{path}/state.json")
    denoiser = Denoiser(config.model)
    parameters = dict(denoiser.named_parameters())
    missing = sorted(parameters.keys() ^ reader.shapes().keys())
    if missing:
        raise UserError(f"{path} does not fit its own configuration: {', '.join(missing)}")
    with torch.no_grad():
        for name, value in reader.whole("ema" if which == "ema" else "master"):
            parameters[name].copy_(value)
    return Loaded(
        denoiser=denoiser.to(device).eval(),
        config=config,
        checkpoint=path,
        step=reader.state["step"],
        tokens_seen=reader.state["tokens_seen"],
    )
