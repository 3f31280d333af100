from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.hardware import Cluster, find
from pretrain.planner.plan import plan
from pretrain.planner.search import candidates, choose, recommend, usable

EIGHT = ["model.width=4096", "model.num_layers=32", "model.num_heads=32"]
SEVENTY = [
    *("model.width=8192", "model.num_layers=80", "model.num_heads=64", "model.mlp_width=28672"),
    *("model.mlp=swiglu", "data.sequence_length=4096", "global_batch=1024"),
]
LARGE_VOCABULARY = ["model.vocab_size=128256", "model.dropout=0.0"]


@pytest.fixture
def owt(root: Path):
    """The published configuration with some words after it."""

    def config(*words: str) -> RunConfig:
        return load(RunConfig, [root / "configs" / "mdlm" / "owt.yaml"], words)

    return config


def h100s(ranks: int) -> Cluster:
    return Cluster(gpu=find("h100-80g"), ranks=ranks, ranks_per_node=8)


def a100s(ranks: int) -> Cluster:
    """Of 40 GiB."""
    return Cluster(gpu=find("a100-40g"), ranks=ranks, ranks_per_node=8)


def test_a_small_model_is_copied_whole(owt) -> None:
    for ranks in (1, 8, 128):
        layout = recommend(owt(), h100s(ranks))
        assert (layout.data, layout.tensor, layout.pipeline) == (ranks, 1, 1)
        assert (layout.zero_stage, layout.recompute_every) == (1, 0)


def test_a_model_of_70b_is_cut_and_fits_1024_gpus(owt) -> None:
    config, cluster = owt(*SEVENTY, *LARGE_VOCABULARY), h100s(1024)
    layout = recommend(config, cluster)
    assert layout.tensor * layout.pipeline > 1 or layout.zero_stage == 3
    numbers = plan(replace(config, parallel=layout), 1024)
    assert numbers.memory.total <= usable(cluster)
    assert numbers.ranks == 1024


def test_smaller_gpus_for_the_same_model_mean_more_measures(owt) -> None:
    config = owt(*EIGHT, *LARGE_VOCABULARY)
    large, small = recommend(config, h100s(64)), recommend(config, a100s(64))
    assert (large.tensor, large.zero_stage, large.recompute_every) == (1, 1, 0)
    assert small.tensor * small.pipeline > 1 or small.zero_stage > 1


@pytest.mark.parametrize("ranks", [1, 2, 6, 8, 24])
def test_every_candidate_can_run(owt, ranks: int) -> None:
    config = owt("global_batch=48")
    for one in candidates(config, h100s(ranks)):
        layout = one.plan.layout
        numbers = plan(replace(config, parallel=layout), ranks)
        assert numbers == one.plan
        assert layout.tensor <= 8
        assert numbers.accumulation >= layout.pipeline


def test_candidates_that_fit_come_first_fastest_first(owt) -> None:
    cluster = h100s(64)
    found = candidates(owt(*SEVENTY, *LARGE_VOCABULARY), cluster)
    fitting = [one for one in found if one.fits]
    assert found[: len(fitting)] == fitting
    assert 0 < len(fitting) < len(found)
    assert [one.speed.step for one in fitting] == sorted(one.speed.step for one in fitting)
    assert all(one.plan.memory.total > usable(cluster) for one in found[len(fitting) :])
    chosen = choose(found)
    assert chosen is not None
    assert chosen.speed.step <= 1.1 * fitting[0].speed.step


def test_sequence_parallelism_and_recomputation_only_where_they_are_needed(owt) -> None:
    for one in candidates(owt(), h100s(8)):
        assert not one.plan.layout.sequence_parallel
        assert not one.plan.layout.recompute_every
    tight = candidates(owt(*EIGHT, *LARGE_VOCABULARY, "data.sequence_length=16384"), h100s(8))
    assert any(one.plan.layout.recompute_every for one in tight if one.fits)


def test_the_recommendation_keeps_the_global_batch(owt) -> None:
    """What an elastic resume relies on."""
    config = owt("parallel.data=128")
    for ranks in (32, 64, 256):
        layout = recommend(config, h100s(ranks))
        numbers = plan(replace(config, parallel=layout), ranks)
        assert numbers.data * numbers.accumulation * numbers.micro_batch == 512


def test_where_nothing_fits_the_error_says_what_would(owt) -> None:
    with pytest.raises(UserError, match=r"needs 2\d\d\.\d GiB per GPU of 36\.0 usable") as caught:
        recommend(owt(*SEVENTY, *LARGE_VOCABULARY), a100s(8))
    assert "use 64 of these GPUs" in str(caught.value)
    assert isinstance(recommend(owt(*SEVENTY, *LARGE_VOCABULARY), a100s(64)), ParallelConfig)


def test_a_batch_that_cannot_be_shared_is_refused(owt) -> None:
    with pytest.raises(UserError, match="global_batch 512 cannot be shared by 1000 GPUs"):
        recommend(owt(), h100s(1000))
