"""The plan's bytes of parameters and optimizer against those that the engines allocate."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from model.architectures.dit import DiT
from model.objectives.mdlm import Mdlm
from pretrain.config import RunConfig
from pretrain.data_config import DataConfig
from pretrain.launch.local import World
from pretrain.parallel.config import ParallelConfig
from pretrain.planner import plan

CONFIG = RunConfig(
    steps=1,
    global_batch=8,
    model=DiT(vocab_size=1000, width=192, num_layers=3, num_heads=4),
    objective=Mdlm(),
    data=DataConfig(corpus="none", sequence_length=16),
)
"""Wide enough that ZeRO 3 has parameters to cut: matrices of more than 100,000 elements."""


@dataclass(frozen=True, kw_only=True)
class Case:
    ranks: int
    precision: str
    tied_head: bool = False
    frozen: tuple[str, ...] = ()
    layout: ParallelConfig

    @property
    def config(self) -> RunConfig:
        model = replace(CONFIG.model, tied_head=self.tied_head, frozen=self.frozen)
        return replace(CONFIG, precision=self.precision, model=model, parallel=self.layout)


CASES = {
    "one rank": Case(ranks=1, precision="fp32", layout=ParallelConfig()),
    "ZeRO 1": Case(ranks=2, precision="bf16", layout=ParallelConfig(zero_stage=1)),
    "ZeRO 2": Case(ranks=2, precision="fp32", layout=ParallelConfig(zero_stage=2)),
    "ZeRO 3": Case(ranks=2, precision="bf16", layout=ParallelConfig(zero_stage=3)),
    "tensor": Case(
        ranks=2, precision="fp32", layout=ParallelConfig(tensor=2, sequence_parallel=True)
    ),
    "pipeline": Case(ranks=2, precision="bf16", layout=ParallelConfig(pipeline=2), tied_head=True),
    "frozen, ZeRO 1": Case(
        ranks=2,
        precision="bf16",
        layout=ParallelConfig(zero_stage=1),
        frozen=("layers.0.tokens.weight", "layers.2.*"),
    ),
    "frozen, ZeRO 3": Case(
        ranks=2,
        precision="bf16",
        layout=ParallelConfig(zero_stage=3),
        frozen=("layers.0.tokens.weight", "layers.2.*"),
    ),
    "frozen, pipeline": Case(
        ranks=2,
        precision="fp32",
        layout=ParallelConfig(pipeline=2),
        tied_head=True,
        frozen=("layers.0.tokens.weight", "layers.2.*"),
    ),
    "tensor, pipeline": Case(
        ranks=4, precision="fp32", layout=ParallelConfig(tensor=2, pipeline=2)
    ),
    "tensor, ZeRO 3": Case(
        ranks=4, precision="bf16", layout=ParallelConfig(tensor=2, zero_stage=3)
    ),
}


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind tensors, those of shared storages once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def allocated(engine: Any) -> dict[str, int]:
    """Bytes of this rank by kind, of a :class:`pretrain.parallel.engine.Engine`.

    Under ZeRO 3 a parameter's own storage is what is whole at present, and ``ds_tensor`` its
    part of it.
    """
    parameters = list(engine._denoiser.parameters())
    parts = [p.ds_tensor for p in parameters if hasattr(p, "ds_tensor")]
    frozen = engine.shards.frozen.flats
    moments = [t for key in ("exp_avg", "exp_avg_sq") for t in engine.shards.moments(key)]
    return {
        "weights": storage_bytes([*(p.data for p in parameters), *parts, *frozen]),
        "optimizer": storage_bytes([*engine.shards.masters, *moments]),
    }


def measure(world: World, config: RunConfig) -> dict[str, int]:
    """What the ranks of a pool do."""
    from pretrain.parallel.build import build
    from pretrain.parallel.mesh import Mesh

    mesh = Mesh(world, tensor=config.parallel.tensor, pipeline=config.parallel.pipeline)
    try:
        return allocated(build(config, mesh))
    finally:
        mesh.close()


@pytest.mark.parametrize("name", CASES)
def test_state_is_what_the_engines_allocate(pool, name: str) -> None:
    case = CASES[name]
    numbers = plan.plan(case.config, case.ranks)
    by_rank = pool.run(case.ranks, measure, case.config)
    ranks_of_stage = case.ranks // case.layout.pipeline
    for rank, real in enumerate(by_rank):
        memory = numbers.stage_memory[rank // ranks_of_stage]
        assert memory.weights == pytest.approx(real["weights"], rel=0.02)
        assert memory.optimizer == pytest.approx(real["optimizer"], rel=0.02)
