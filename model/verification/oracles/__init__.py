"""Oracles: checks of each objective against exact known answers, one file per objective.

The file has the objective's name and defines ``oracles() -> Iterator[Check]``. The folder is the
registry; an objective without a file here fails, so that every objective is checked.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from configs.load import Plugin
from model.verification import randomness
from model.verification.check import Check, Comparison


class NoOracleError(Exception):
    """An installed objective has no oracle."""


OBJECTIVES = Plugin("model.objectives")
ORACLES = Plugin("model.verification.oracles")


def checks(device: torch.device) -> Iterator[Check]:
    """The checks of the random draws and of every installed objective, run on ``device``."""
    for check in _all():
        yield replace(check, compare=partial(_on, device, check))


def _all() -> Iterator[Check]:
    yield from randomness.oracles()
    known = ORACLES.names()
    for name in OBJECTIVES.names():
        if name in known:
            yield from importlib.import_module(f"{ORACLES.package}.{name}").oracles()
        else:
            yield Check(name=name, compare=partial(_no_oracle, name))


def _on(device: torch.device, check: Check) -> list[Comparison]:
    with device:
        return check.compare()


def _no_oracle(name: str) -> list[Comparison]:
    raise NoOracleError(
        f"no oracle: write model/verification/oracles/{name}.py with oracles() -> Iterator[Check], "
        "which compares the objective with what is known exactly"
    )
