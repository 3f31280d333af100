import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.permutation import MAX_SIZE, derive_key, shuffled


@pytest.mark.parametrize("sizes", [range(1, 200), [255, 256, 257, 1000, 4095, 4096, 4097, 100_003]])
def test_is_a_bijection(sizes: list[int]) -> None:
    for size in sizes:
        image = shuffled(np.arange(size), size, key=size)
        assert np.array_equal(np.sort(image), np.arange(size)), size


@given(size=st.integers(1, MAX_SIZE), key=st.integers(), data=st.data())
def test_large_sizes_stay_inside_and_collide_nowhere(
    size: int, key: int, data: st.DataObject
) -> None:
    index = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True))
    image = shuffled(np.array(index), size, key)
    assert image.dtype == np.int64
    assert image.min() >= 0
    assert image.max() < size
    assert len(set(image.tolist())) == len(index)
    alone = shuffled(index[0], size, key)
    assert alone.shape == ()
    assert int(alone) == image[0]


def test_the_numbers_never_change() -> None:
    """A resumed run relies on them, on whatever platform or version."""
    assert shuffled(np.arange(10), 10, key=1).tolist() == EXPECTED_10
    assert shuffled(np.array([0, 2**61]), 2**62, key=-5).tolist() == EXPECTED_LARGE
    assert derive_key(0, 0) == EXPECTED_KEY


EXPECTED_10 = [8, 9, 4, 5, 3, 2, 7, 1, 0, 6]
EXPECTED_LARGE = [2977227648499975087, 2489212236037697692]
EXPECTED_KEY = 5197578548964807871


def test_keeps_the_shape_and_the_input() -> None:
    index = np.arange(6).reshape(2, 3)
    before = index.copy()
    assert shuffled(index, 10, key=3).shape == (2, 3)
    assert np.array_equal(index, before)


def test_keys_differ() -> None:
    images = [tuple(shuffled(np.arange(50), 50, key).tolist()) for key in range(-200, 200)]
    assert len(set(images)) == len(images)
    keys = {derive_key(key, number) for key in range(100) for number in range(100)}
    assert len(keys) == 10_000


# Bounds are the 99.99% points of chi-square for the degrees of freedom.
@pytest.mark.parametrize(
    ("size", "bound"), [(10, 33.7), (7, 27.9), pytest.param(64, 114.8, marks=pytest.mark.slow)]
)
def test_the_place_of_an_element_is_uniform(size: int, bound: float) -> None:
    trials = 200 * size
    places = Counter(int(shuffled(0, size, key)) for key in range(trials))
    chi_square = sum((places[p] - 200) ** 2 / 200 for p in range(size))
    assert chi_square < bound


def test_all_orders_of_three_are_equally_likely() -> None:
    orders = Counter(tuple(shuffled(np.arange(3), 3, key).tolist()) for key in range(1200))
    assert set(orders) == set(itertools.permutations(range(3)))
    assert sum((n - 200) ** 2 / 200 for n in orders.values()) < 25.7


def test_neighbours_are_uncorrelated() -> None:
    size = 20_000
    for key in range(5):
        image = shuffled(np.arange(size), size, key)
        for lag in (1, 2, 128):
            assert abs(np.corrcoef(image[:-lag], image[lag:])[0, 1]) < 4 / size**0.5
        assert abs(np.corrcoef(image, np.arange(size))[0, 1]) < 4 / size**0.5
