"""A small schema, the data of a run, and the problems that a schema finds in data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from configs.errors import UserError
from configs.load import (
    Plugin,
    validate,
)
from model.schedules.loglinear import LogLinear

Write = Callable[..., Path]


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1.0
    decay: float = 0.0
    steps: int = 1
    betas: tuple[float, float] = (0.5, 0.75)

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError(f"lr must not be negative, not {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int
    optim: Optim = Optim()
    schedule: Annotated[Any, Plugin("model.schedules")] = LogLinear()
    other: Optim | None = None
    folder: Path | None = None
    name: str | None = None


def run_data() -> dict[str, Any]:
    return {
        "steps": 3,
        "global_batch": 4,
        "model": {"vocab_size": 16, "width": 8, "num_heads": 2, "num_layers": 1},
        "objective": {"name": "mdlm", "schedule": {"name": "cosine", "eps": 0.25}},
        "data": {"corpus": "demo", "sequence_length": 8},
    }


def problems(schema: type, data: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate(schema, data, where="here")
    first, *lines = str(caught.value).splitlines()
    noun = "problem" if len(lines) == 1 else "problems"
    assert first == f"{len(lines)} {noun} in here:"
    return [line.removeprefix("  ") for line in lines]
