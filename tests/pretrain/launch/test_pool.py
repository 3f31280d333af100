"""Live ranks: they meet anew at every call, and a failure ends them with the true traceback."""

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pretrain.config import RunConfig
from pretrain.launch import local as launch
from pretrain.launch.local import World
from pretrain.launch.pool import Pool, RankError
from pretrain.parallel.engine import Engine
from pretrain.parallel.mesh import Mesh
from pretrain.trial import run_config
from tools.verify import layouts


def sum_of_ranks(world: World) -> tuple[int, int]:
    mesh = Mesh(world)
    total = torch.tensor(mesh.rank + 1)
    dist.all_reduce(total)
    mesh.close()
    return os.getpid(), int(total)


def fail_on_one(world: World, who: int) -> None:
    mesh = Mesh(world)
    if mesh.rank == who:
        raise LookupError("this one")
    mesh.barrier()


def sleep(world: World) -> None:
    time.sleep(60)


def test_the_same_processes_meet_again(pool: Pool) -> None:
    first = pool.run(4, sum_of_ranks)
    second = pool.run(3, sum_of_ranks)
    assert [total for _, total in first] == [10] * 4
    assert [total for _, total in second] == [6] * 3
    assert [pid for pid, _ in second] == [pid for pid, _ in first[:3]]


def test_a_failure_names_its_rank_and_the_next_call_works(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRACE_S", 1.0)
    with pytest.raises(RankError, match="rank 2 of 4 failed") as caught:
        pool.run(4, fail_on_one, 2)
    assert "LookupError: this one" in str(caught.value)
    assert [total for _, total in pool.run(2, sum_of_ranks)] == [3, 3]


def fail_and_write(world: World, path: Path) -> None:
    if world.rank == 1:
        raise LookupError("this one")
    time.sleep(1)
    path.write_text("written")
    raise LookupError("that one")


def test_the_others_may_end_what_they_do(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(RankError, match="rank 1 of 2 failed"):
        pool.run(2, fail_and_write, tmp_path / "status")
    assert (tmp_path / "status").read_text() == "written"


def test_a_rank_that_does_not_answer_is_named(pool: Pool) -> None:
    with pytest.raises(RankError, match="no answer from rank 0, 1 within 1 s"):
        pool.run(2, sleep, timeout_s=1)


def places(world: World, tensor: int, pipeline: int) -> dict[str, Any]:
    mesh = Mesh(world, tensor=tensor, pipeline=pipeline)
    found = {
        "at": (mesh.pipe_rank, mesh.data_rank, mesh.tensor_rank),
        "tensor": dist.get_process_group_ranks(mesh.tensor_group),
        "data": dist.get_process_group_ranks(mesh.data_group),
        "pipe": dist.get_process_group_ranks(mesh.pipe_group),
        "model": dist.get_process_group_ranks(mesh.model_group),
        "stages": [mesh.stage(index) for index in range(pipeline)],
        "total": float(mesh.total(torch.tensor(1.0 + mesh.data_rank))),
        "gathered": mesh.gather(mesh.data_rank),
        "agreed": mesh.all_reduce_counts(torch.tensor([mesh.data_rank + 1]), 1, mesh.rank),
    }
    mesh.close()
    return found


def test_the_mesh_has_the_order_of_megatron(pool: Pool) -> None:
    found = pool.run(4, places, 2, 1)
    assert [f["at"] for f in found] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert found[3]["tensor"] == [2, 3]
    assert found[3]["data"] == [1, 3]
    assert found[3]["model"] == [2, 3]
    assert all(f["total"] == 3.0 for f in found)
    assert all(f["gathered"] == [0, 1] for f in found)
    assert all(f["agreed"] == [3, 4, 6] for f in found)

    found = pool.run(4, places, 2, 2)
    assert [f["at"] for f in found] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert found[1]["pipe"] == found[1]["stages"] == [1, 3]
    assert found[1]["model"] == [0, 1, 2, 3]
    assert all(f["total"] == 1.0 for f in found)

    found = pool.run(4, places, 1, 2)
    assert [f["at"] for f in found] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert found[2]["data"] == [2, 3]
    assert all(f["gathered"] == [0, 1] for f in found)


def left_of_a_run(world: World, config: RunConfig) -> tuple[int, int]:
    """Engines, and parameters with their moments, of a run that has ended."""
    layouts.train(world, config, 1)
    gc.collect()
    alive = gc.get_objects()
    return (
        sum(isinstance(one, Engine) for one in alive),
        sum(isinstance(one, torch.nn.Parameter) for one in alive),
    )


@pytest.mark.parametrize("layout", [{"zero_stage": 1}, {"tensor": 2}, {"pipeline": 2}])
def test_a_run_leaves_nothing_on_its_ranks(pool: Pool, layout: dict[str, int]) -> None:
    """Where its engine stayed, so would its process groups, whose threads slow the ranks down."""
    pool.close_ranks()
    config = run_config("mdlm", parallel=layout)
    assert pool.run(2, left_of_a_run, config) == [(0, 0)] * 2
