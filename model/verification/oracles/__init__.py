"""Oracles: for each objective a file of its name, with what can be known about it exactly.

The file defines ``oracles() -> Iterator[Check]``. The folder is the registry; an objective
that has no file here fails, so that none is installed on trust.
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
    """An objective is installed that nothing here checks."""


OBJECTIVES = Plugin("model.objectives")
ORACLES = Plugin("model.verification.oracles")


def checks(device: torch.device) -> Iterator[Check]:
    """The checks of the noise and of every installed objective, computed on ``device``."""
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
