"""The sampling loop of the Gaussian process: from noise to embeddings, from these to ids."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from model.draws import Draws
from model.gaussian_samplers import GaussianSampler, plan
from model.prediction import Prediction, Read
from model.processes.gaussian import Gaussian, Parameterisation, to_x0
from model.query import Query


class EmbeddingNetwork(Protocol):
    """What sampling asks of an encoder-decoder, whole or spread over ranks."""

    def ask(self, query: Query, read: Read[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What ``read`` makes of the prediction."""

    def remember(self, query: Query) -> Query:
        """The query with its source encoded once."""


def generate_embeddings(
    source_BS: Tensor,
    source_valid_BS: Tensor,
    position_B: Tensor,
    network: EmbeddingNetwork,
    *,
    length: int,
    width: int,
    sampler: GaussianSampler,
    process: Gaussian,
    prediction: Parameterisation,
    self_conditioning: bool,
    draws: Draws,
    on_step: Callable[[int], object] = lambda number: None,
) -> Tensor:
    """Ids ``[B, length]`` of a target for each source.

    Args:
        position_B: int64 number of each sample; it alone tells the samples' draws apart.
        width: E, of the embeddings.
        prediction: what the network's output is.
        self_conditioning: go on from the prediction of the step before.
        on_step: called with the number of every step done.
    """
    shape = (len(source_BS), length, width)

    def normal(kind: str) -> Tensor:
        return draws.normal(kind, position_B, length * width).view(shape)

    device = source_BS.device
    everywhere = torch.ones(shape[:2], dtype=torch.bool, device=device)
    base = network.remember(
        Query(
            ids_BL=torch.zeros(shape[:2], dtype=torch.int64, device=device),
            level_BK=torch.ones(shape[0], 1, device=device),
            where_BL=everywhere,
            signal_B1=torch.zeros(shape[0], 1, device=device),
            source_BS=source_BS,
            source_valid_BS=source_valid_BS,
        )
    )

    def moved(
        found: Prediction, x: Tensor, number: int, i: int, j: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The embeddings at index j, the clean ones that the network sees, and their ids."""
        assert found.vector_ME is not None
        assert found.table is not None
        abar_i, abar_j = (process.abar(torch.tensor(index)) for index in (i, j))
        draft = x0 = to_x0(prediction, found.vector_ME.float().view(shape), x, abar_i.float())
        if float(process.level(torch.tensor(i))) <= sampler.clamp_below:
            x0 = found.table.nearest(x0.flatten(0, 1)).view(shape)
        x = sampler.step(x, x0, abar_i, abar_j, partial(normal, f"step/{number}"))
        ids = found.table.round(x.flatten(0, 1)) if j < 0 else base.ids_BL
        return x, draft, ids.view(shape[:2])

    x, draft, ids_BL = normal("prior"), None, base.ids_BL
    indices = plan(process.num_steps, sampler.steps)
    for number, (i, j) in enumerate(pairwise(indices)):
        level = float(process.level(torch.tensor(i)))
        query = replace(
            base, level_BK=torch.full_like(base.level_BK, level), noise_BLE=x, draft_BLE=draft
        )
        x, seen, ids_BL = network.ask(query, partial(moved, x=x, number=number, i=i, j=j))
        draft = seen if self_conditioning else None
        on_step(number)
    return ids_BL
