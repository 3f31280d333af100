"""The layout of a run on other numbers of ranks."""

import json
from dataclasses import replace

import pytest

from pretrain.__main__ import main
from pretrain.config import RunConfig
from pretrain.parallel.config import ParallelConfig
from pretrain.planner.elastic import report


@pytest.mark.parametrize(
    ("own", "ranks", "expected"),
    [
        ({}, 4, {}),
        ({"data": 2}, 4, {"data": None}),
        ({"data": 4, "micro_batch": 2}, 8, {"data": None, "micro_batch": None}),
        ({"tensor": 2}, 1, {"tensor": 1}),
        ({"tensor": 4, "sequence_parallel": True}, 2, {"tensor": 2, "sequence_parallel": True}),
        ({"tensor": 2, "sequence_parallel": True}, 1, {"tensor": 1, "sequence_parallel": False}),
        ({"tensor": 2, "pipeline": 2}, 2, {"tensor": 2, "pipeline": 1}),
        ({"pipeline": 4}, 2, {"pipeline": 2}),
        ({"zero_stage": 3}, 2, {"zero_stage": 3}),
    ],
)
def test_the_nearest_layout_is_found(
    tiny_config: RunConfig, own: dict, ranks: int, expected: dict
) -> None:
    config = replace(tiny_config, parallel=ParallelConfig(**own))
    layout = report(config, ranks)["layout"]
    assert layout == {**vars(config.parallel), **expected}


def test_a_layout_that_fits_is_no_problem_and_is_kept(tiny_config: RunConfig) -> None:
    config = replace(tiny_config, parallel=ParallelConfig(data=2, micro_batch=4))
    assert report(config, 2) == {"problem": None, "layout": vars(config.parallel)}
    assert "parallel.data is 2, but 4 ranks make it 4" in report(config, 4)["problem"]


def test_where_none_fits_there_is_none(tiny_config: RunConfig) -> None:
    found = report(tiny_config, 3)
    assert found["layout"] is None
    assert "global_batch 8 does not divide by the data-parallel size 3" in found["problem"]


def test_the_dry_run_tells_programs(tiny, capsys) -> None:
    assert main([*tiny("parallel.tensor=2"), "--dry-run", "--json", "--ranks", "1,2"]) == 0
    layouts = json.loads(capsys.readouterr().out)["layouts"]
    assert layouts["2"]["problem"] is None
    assert layouts["1"]["layout"]["tensor"] == 1
