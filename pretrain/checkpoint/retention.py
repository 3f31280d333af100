"""Retention: which checkpoints are kept."""

import math
from collections.abc import Mapping
from pathlib import Path

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.config import CheckpointConfig


def kept(scores: Mapping[int, float | None], config: CheckpointConfig) -> set[int]:
    """The steps to keep, of checkpoints with these held-out bounds (None: not evaluated).

    The newest always stays, whatever the configuration.
    """
    steps = sorted(scores)
    keep = set(steps[-config.keep_last :])
    if config.keep_every:
        keep |= {step for step in steps if step % config.keep_every == 0}
    judged = {step: score for step, score in scores.items() if score is not None}
    finite = [step for step in sorted(judged) if math.isfinite(judged[step])]
    keep |= set(sorted(finite, key=lambda step: judged[step])[: config.keep_best])
    return keep


def prune(directory: Path, config: CheckpointConfig) -> list[str]:
    """Remove the checkpoints that need not be kept; returns the problems met.

    Damaged checkpoints are neither counted nor removed.
    """
    problems = []
    paths: dict[int, Path] = {}
    scores: dict[int, float | None] = {}
    for path in store.committed(directory):
        try:
            scores[store.step_of(path)] = store.in_place(path).state.get("score")
            paths[store.step_of(path)] = path
        except UserError as error:
            problems.append(f"{error}; it stays until you remove it")
    for step in sorted(paths.keys() - kept(scores, config)):
        try:
            store.remove(paths[step])
        except OSError as error:
            problems.append(f"{paths[step]} could not be removed: {error.strerror}")
    return problems
