"""Training with the objective of ``methods/distilled.py``, which asks a frozen network."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import model.objectives
from pretrain.launch.local import World
from pretrain.launch.pool import Pool

METHODS = str(Path(__file__).with_name("methods"))


@contextmanager
def installed() -> Iterator[None]:
    """With the method of this folder among the others."""
    model.objectives.__path__.append(METHODS)
    try:
        yield
    finally:
        model.objectives.__path__.remove(METHODS)


def in_rank(world: World, pickled: bytes) -> Any:
    """What is pickled names a class that only those find who have installed the method."""
    with installed():
        target, args = pickle.loads(pickled)
        return target(world, *args)


def run_on(pool: Pool, size: int, target: Callable[..., Any], *args: Any) -> list[Any]:
    found: list[Any] = pool.run(size, in_rank, pickle.dumps((target, args)), timeout_s=200)
    return found
