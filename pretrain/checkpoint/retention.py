"""Which checkpoints stay."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from pretrain.checkpoint import store
from pretrain.config import CheckpointConfig


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


def prune(directory: Path, config: CheckpointConfig) -> None:
    """Remove what need not stay; what is not whole is neither counted nor touched."""
    paths = {_step(path): path for path in store.whole(directory)}
    keep = kept({step: _score(path) for step, path in paths.items()}, config)
    store.prune(directory, {paths[step] for step in keep})


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _score(path: Path) -> float | None:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    score = state.get("score")
    return None if score is None else float(score)
