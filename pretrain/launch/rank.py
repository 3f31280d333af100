"""What a rank runs. It stands apart so that only the ranks import the engines."""

from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.launch.local import World

if TYPE_CHECKING:
    from pretrain.config import RunConfig


def train_rank(world: World, config: "RunConfig", path: Path) -> int:
    """One rank's part of a run; returns its exit status."""
    from pretrain.launch.attempt import train

    return train(world, config, path)
