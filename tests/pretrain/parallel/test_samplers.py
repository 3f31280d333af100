"""Samplers over a vocabulary that is split over ranks: the same ids on each, and as on one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import AllRows, Categorical, Rows
from model.draws import Draws
from model.objectives.mdlm import Mdlm
from model.prediction import Answer, Prediction, Read
from model.query import Query
from model.samplers import Job, Sampler
from model.samplers.ancestral import Ancestral
from model.samplers.confidence import Confidence
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.mesh import Mesh

MODEL = DiT(vocab_size=13)
R, B, L = 16, 3, 8


class Part:
    """Logits of some rows, from what is visible and the position."""

    def __init__(self, rows: Rows, here: slice) -> None:
        self.rows, self.here = rows, here

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        generator = torch.Generator().manual_seed(0)
        table_VR = torch.randn(R, R, generator=generator)
        place_LR = torch.randn(L, R, generator=generator)
        table_VR[MODEL.mask] = 0.0
        logits_BLR = table_VR[query.ids_BL].sum(dim=1, keepdim=True) + place_LR
        logits_BLR[..., MODEL.vocab_size :] = -torch.inf
        logits_MR = logits_BLR[query.predict_mask_BL][:, self.here]
        return read(Prediction(logits=Categorical(logits_MR, self.rows)))

    def encode(self, query: Query) -> Query:
        return query


SAMPLERS: list[Sampler] = [
    *(
        Confidence(steps=4, criterion=criterion, guidance=guidance, top_p=0.9)
        for criterion in ("probability", "entropy", "margin", "random")
        for guidance in (0.0, 1.5)
    ),
    Ancestral(steps=4, guidance=1.5, top_p=0.9),
]


def drawn(network: Any) -> list[Tensor]:
    """What each sampler writes, after two tokens that are given."""
    free_BL = torch.arange(L).repeat(B, 1) > 1
    return [
        sampler.run(
            Job(
                ids_BL=torch.arange(L).repeat(B, 1),
                free_BL=free_BL,
                position_B=torch.arange(B),
                draws=Draws(seed=0, split="sample", batch=B),
                objective=Mdlm(),
                model=MODEL,
                network=network,
            )
        )
        for sampler in SAMPLERS
    ]


def drawn_here(world: World, tensor: int) -> list[Tensor]:
    """The same with this rank's rows."""
    from pretrain.parallel.tensor import ShardedRows, TensorFactory

    mesh = Mesh(world, tensor=tensor)
    TensorFactory(mesh, sequence_parallel=False)
    size = R // tensor
    here = slice(mesh.tensor_rank * size, (mesh.tensor_rank + 1) * size)
    found = drawn(Part(ShardedRows(mesh.tensor_group, size), here))
    mesh.close()
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_a_split_vocabulary_changes_no_sample(pool: Pool, size: int) -> None:
    truth = drawn(Part(AllRows(R), slice(0, R)))
    assert len({str(ids.tolist()) for ids in truth}) == len(SAMPLERS)
    for ranks in pool.run(size, drawn_here, size):
        for mine, whole in zip(ranks, truth, strict=True):
            assert torch.equal(mine, whole)
