"""The cut of a pipeline: contiguous, non-empty, and never worse than any other cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architectures.dit import DiT
from pretrain.planner.partition import balanced, layer_costs

costs = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=9)


def dearest(values: list[float], bounds: list[int]) -> float:
    return max(sum(values[a:b]) for a, b in itertools.pairwise(bounds))


@given(values=costs, data=st.data())
def test_no_other_cut_is_better(values: list[float], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(values)))
    bounds = balanced(values, parts)
    assert (bounds[0], bounds[-1]) == (0, len(values))
    assert all(a < b for a, b in itertools.pairwise(bounds))
    inner = itertools.combinations(range(1, len(values)), parts - 1)
    best = min(dearest(values, [0, *cut, len(values)]) for cut in inner)
    assert dearest(values, bounds) <= best * (1 + 1e-9) + 1e-12


def test_more_stages_than_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="3 layers cannot be cut into 4 stages"):
        balanced([1.0, 1.0, 1.0], 4)


def test_a_large_vocabulary_takes_blocks_from_the_last_stage() -> None:
    config = DiT(vocab_size=32_000, width=256, num_layers=8, num_heads=4)
    first, middle, last = balanced(layer_costs(config, 128), 2)
    assert middle - first > last - middle
