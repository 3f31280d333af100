import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner import plan
from pretrain.planner.hardware import GPUS, LINK_SHARE, Cluster, find
from pretrain.planner.speed import bubble
from pretrain.trial import run_config


@pytest.fixture
def owt(root: Path) -> RunConfig:
    return load(RunConfig, [root / "configs" / "mdlm" / "owt.yaml"])


def test_a_pipeline_idles_while_it_fills_and_drains() -> None:
    assert bubble(1, 7) == 0
    assert bubble(4, 1) == 3 / 4
    assert bubble(4, 16) == 3 / 19


def test_micro_batches_follow_from_the_layout(owt: RunConfig) -> None:
    config = replace(owt, parallel=ParallelConfig(tensor=2, pipeline=2))
    numbers = plan.plan(config, 32)
    assert (numbers.ranks, numbers.data) == (32, 8)
    assert (numbers.accumulation, numbers.micro_batch) == (8, 8)
    assert numbers.bubble == 1 / 9
    assert numbers.tokens_per_step == 512 * 1024
    assert len(numbers.stage_memory) == 2
    assert numbers.memory.total == max(memory.total for memory in numbers.stage_memory)


def test_what_does_not_divide_is_refused(owt: RunConfig) -> None:
    with pytest.raises(UserError, match="does not divide by the data-parallel size 3"):
        plan.plan(owt, 3)


def test_zero_0_runs_as_1(owt: RunConfig) -> None:
    zero, one = (replace(owt, parallel=ParallelConfig(zero_stage=stage)) for stage in (0, 1))
    assert plan.as_json(zero, 4) == plan.as_json(one, 4)


def test_the_description_names_what_a_reader_looks_for(owt: RunConfig) -> None:
    layout = ParallelConfig(tensor=2, pipeline=2, sequence_parallel=True, recompute_every=2)
    config = replace(owt, parallel=layout, model=replace(owt.model, dropout=0.0))
    text = plan.describe(config, 8)
    assert "parameters       169,697,920" in text
    assert "8 ranks: data 2 x tensor 2 x pipeline 2, ZeRO 1, bf16, sequence parallel" in text
    assert "512 samples = 2 data-parallel ranks x 8 micro-batches of 32" in text
    assert "tokens per step  524,288; of the run 524,288,000,000" in text
    assert "of the fullest stage: weights" in text
    assert "pipeline bubble  11.1% of a step" in text


def test_the_json_is_plain(owt: RunConfig) -> None:
    numbers = plan.as_json(replace(owt, parallel=ParallelConfig(pipeline=2)), 8)
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["ranks"] == 8
    assert numbers["memory_bytes"]["total"] == max(
        stage["memory_bytes"]["total"] for stage in numbers["stages"]
    )


def test_a_ring_is_as_fast_as_its_slowest_link() -> None:
    gpu = find("h100-80g")
    cluster = Cluster(gpu=gpu, ranks=64, ranks_per_node=8)
    assert cluster.rate(1, 8) == LINK_SHARE * gpu.node_rate
    assert cluster.rate(1, 64) == LINK_SHARE * 8 * gpu.network_rate
    assert cluster.rate(4, 16) == LINK_SHARE * 2 * gpu.network_rate
    assert cluster.rate(8, 8) == cluster.rate(32, 2) == LINK_SHARE * gpu.network_rate


def test_an_unknown_gpu_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown GPU 'h100'; there are: a100-40g"):
        find("h100")
    assert all(gpu.name == name for name, gpu in GPUS.items())


def test_compute_takes_what_the_mfu_says(owt: RunConfig) -> None:
    numbers = plan.plan(owt, 1)
    gpu = find("h100-80g")
    speed = numbers.speed(Cluster(gpu=gpu, ranks=1, ranks_per_node=8), mfu=0.5)
    operations = numbers.flops_per_token * numbers.tokens_per_step
    assert speed.compute == pytest.approx(operations / (0.5 * gpu.bf16_flops))
    assert (speed.bubble, speed.tensor, speed.pipeline, speed.data) == (0, 0, 0, 0)


def test_recomputation_costs_a_forward_pass(owt: RunConfig) -> None:
    cluster = Cluster(gpu=find("h100-80g"), ranks=1, ranks_per_node=8)
    recomputed = replace(owt, parallel=ParallelConfig(recompute_every=1))
    ratio = (
        plan.plan(recomputed, 1).speed(cluster).compute / plan.plan(owt, 1).speed(cluster).compute
    )
    assert 1.2 < ratio < 4 / 3


@pytest.mark.parametrize(
    ("name", "read", "head"), [("sundae", 2.0, 1.0), ("bd3lm", 2.0, 0.25), ("udlm", 1.0, 1.0)]
)
def test_what_an_objective_reads_is_planned_for(name: str, read: float, head: float) -> None:
    """Views and copies make activations and operations so many times as large."""
    model = {"time_conditioning": False, "vocab_size": 2000}
    base, other = (plan.plan(run_config(one, model=model), 1) for one in ("mdlm", name))
    assert (base.expansion, base.head_share) == (1, 0.5)
    assert (other.expansion, other.head_share) == (read, head)
    per_position = other.flops_per_token / read - base.flops_per_token
    whole_head = 6 * 2048 * 32
    assert per_position == pytest.approx((head - 0.5) * whole_head, rel=1e-6)
    assert other.memory.activations > 1.5 * read / 2 * base.memory.activations
