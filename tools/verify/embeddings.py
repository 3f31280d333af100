"""What :mod:`tools.verify.layouts` asks of an encoder-decoder: held-out losses."""

import numpy as np
from torch import Tensor

from model.draws import Draws
from model.objectives import State
from pretrain.config import RunConfig
from pretrain.evaluate import Share, mean_losses
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from tools.verify.synthetic import batch

NUM = 7


class SyntheticStream:
    """Held-out samples of the synthetic corpus, as a stream gives them."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._draws = Draws(seed=1, split="windows", batch=NUM)

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """See :class:`data_pipeline.loader.Stream`."""
        return batch(self._config, self._draws, positions.tolist())


def losses(trained: Engine, mesh: Mesh, config: RunConfig, state: State) -> list[float]:
    """The mean loss of the held-out samples."""
    found = mean_losses(
        trained.ask,
        config.objective,
        config.model,
        SyntheticStream(config),
        seed=0,
        num=NUM,
        batch=2,
        state=state,
        share=Share(rank=mesh.data_rank, size=mesh.data_size),
        device=mesh.device,
    )
    total = found.total(lambda values: mesh.total(values.to(mesh.device)))
    return [total.losses(config.objective)["loss"]]
