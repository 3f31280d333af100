"""The entry point of a rank; it imports the engines, which the launching process does not."""

from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.hooks import Hooks
from pretrain.launch.local import World

if TYPE_CHECKING:
    from pretrain.config import RunConfig


def train_rank(world: World, config: "RunConfig", path: Path, hooks: Hooks = ()) -> int:
    """Train on one rank of a run; returns its exit status."""
    from pretrain.launch.train import train

    return train(world, config, path, hooks)
