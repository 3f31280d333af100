"""What :mod:`tools.verify.layouts` asks of an encoder-decoder: held-out losses, and texts."""

import numpy as np
import torch
from model.gaussian_samplers.ddpm import Ddpm
from model.generate_embeddings import generate_embeddings
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


def texts(trained: Engine, mesh: Mesh, config: RunConfig, num: int) -> list[list[int]]:
    """Targets of some sources, by a few clamped steps."""
    shape, objective = config.model.seq2seq, config.objective
    assert shape is not None
    samples = batch(config, Draws(seed=1, split="windows", batch=num), range(num), mesh.device)
    with torch.no_grad():
        drawn = generate_embeddings(
            samples["source"],
            samples["source_valid"],
            samples["position"],
            trained,
            length=config.data.sequence_length,
            width=shape.embedding_width,
            sampler=Ddpm(steps=4),
            process=objective.process,
            prediction=objective.prediction,
            self_conditioning=objective.refines,
            draws=Draws(seed=0, split="sample", batch=num),
        )
    found: list[list[int]] = drawn.tolist()
    return found
