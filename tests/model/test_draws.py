import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.draws import Draws, philox
from model.verification.randomness import FULL, VECTORS


def draws(seed: int = 5, split: str = "train", batch: int = 8) -> Draws:
    return Draws(seed=seed, split=split, batch=batch)


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor([[word, word]]) for word in counter)
    out = philox((c0, c1, c2, c3), key)
    assert [word.tolist() for word in out] == [[[word, word]] for word in words]


def test_uniforms_have_the_moments_and_the_range_of_uniforms() -> None:
    u = draws().uniform("x", torch.arange(2000), 100)
    assert u.dtype == torch.float64
    assert u.shape == (2000, 100)
    assert u.min() > 0
    assert u.max() < 1
    error = u.numel() ** -0.5
    assert abs(u.mean() - 1 / 2) < 4 * error * (1 / 12) ** 0.5
    assert abs(u.var() - 1 / 12) < 4 * error * (1 / 180) ** 0.5
    counts = torch.histc(u, bins=100, min=0, max=1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 99 + 4 * (2 * 99) ** 0.5


def test_uniforms_have_52_bits() -> None:
    u = draws().uniform("x", torch.arange(1000), 10)
    bits = u * 2.0**52 - 0.5
    assert torch.equal(bits, bits.floor())
    for low in (1, 2, 4, 8, 16, 20):
        odd = (bits.long() >> (low - 1)) & 1
        assert abs(odd.double().mean() - 0.5) < 4 * 0.5 / 100


def test_draws_are_uncorrelated_between_positions_coordinates_seeds_splits_and_kinds() -> None:
    position = torch.arange(4096)
    columns = [
        *draws().uniform("x", position, 4).T,
        *draws().uniform("x", position + 4096, 2).T,
        *draws().uniform("y", position, 2).T,
        *draws(seed=6).uniform("x", position, 2).T,
        *draws(split="valid").uniform("x", position, 2).T,
    ]
    correlation = torch.corrcoef(torch.stack(columns))
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 5 / 4096**0.5
    follower = torch.corrcoef(torch.stack((columns[0][1:], columns[0][:-1])))[0, 1]
    assert abs(follower) < 5 / 4096**0.5


@pytest.mark.parametrize(
    "other",
    [
        draws(seed=6).uniform("x", torch.arange(4), 3),
        draws(split="valid").uniform("x", torch.arange(4), 3),
        draws().uniform("y", torch.arange(4), 3),
        draws().uniform("x", torch.arange(4) + 4, 3),
    ],
    ids=["seed", "split", "kind", "position"],
)
def test_every_part_of_the_key_changes_every_draw(other: Tensor) -> None:
    assert not torch.isin(draws().uniform("x", torch.arange(4), 3), other).any()


def test_positions_and_coordinates_beyond_32_bits_have_draws_of_their_own() -> None:
    far = torch.tensor([7, 7 + 2**32, 7 + 2**33, 7 + 2**45, 7 + 2**62])
    rows = draws().uniform("x", far, 3)
    assert rows.unique().numel() == rows.numel()
    row = draws().uniform_at("x", torch.tensor(3), far)
    assert row.unique().numel() == row.numel()
    grid = draws().uniform_at("x", far[:, None], far[None, :])
    assert grid.unique().numel() == grid.numel()


def test_the_global_batch_changes_times_only() -> None:
    position = torch.arange(8)
    assert torch.equal(
        draws(batch=8).uniform("x", position, 3), draws(batch=16).uniform("x", position, 3)
    )
    assert not torch.equal(draws(batch=8).times(position), draws(batch=16).times(position))


@settings(deadline=None, max_examples=50, database=None)
@given(positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), data=st.data())
def test_a_row_does_not_depend_on_how_positions_are_batched(
    positions: list[int], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(positions))))
    kept = order[: data.draw(st.integers(1, len(order)))]
    whole = torch.tensor(positions)
    part = whole[kept]
    source = draws(batch=6)
    assert torch.equal(source.uniform("x", whole, 5)[kept], source.uniform("x", part, 5))
    assert torch.equal(source.uniform("x", whole, 5)[:, :2], source.uniform("x", whole, 2))
    assert torch.equal(source.times(whole)[kept], source.times(part))
    coordinate = torch.arange(len(positions)) % 5
    assert torch.equal(
        source.uniform_at("x", whole, coordinate),
        source.uniform("x", whole, 5)[torch.arange(len(positions)), coordinate],
    )


def test_times_differ_between_kinds_seeds_and_batches() -> None:
    position = torch.arange(8)
    times = draws().times(position)
    assert times.shape == (8, 1)
    assert times.dtype == torch.float64
    for other in (
        draws().times(position, kind="other"),
        draws(seed=6).times(position),
        draws().times(position + 8),
    ):
        assert not torch.isin(times, other).any()


@settings(deadline=None, max_examples=100, database=None)
@given(batch=st.integers(1, 700), number=st.integers(0, 2**40))
def test_a_global_batch_has_exactly_one_time_in_every_bin(batch: int, number: int) -> None:
    times = draws(batch=batch).times(batch * number + torch.arange(batch))
    assert times.min() > 0
    assert times.max() < 1
    assert sorted((times[:, 0] * batch).long().tolist()) == list(range(batch))


@settings(deadline=None, max_examples=50, database=None)
@given(batch=st.integers(1, 60), num=st.integers(1, 60), number=st.integers(0, 2**40))
def test_several_times_of_a_sample_are_spread_over_it_and_over_the_batch(
    batch: int, num: int, number: int
) -> None:
    times = draws(batch=batch).times(batch * number + torch.arange(batch), num=num)
    assert times.shape == (batch, num)
    assert ((times * num).long().sort(dim=1).values == torch.arange(num)).all()
    assert sorted((times * batch * num).long().flatten().tolist()) == list(range(batch * num))


def test_none_of_several_times_is_bound_to_a_part_of_the_range() -> None:
    times = draws(batch=16).times(torch.arange(16_000), num=4)
    spread = (3 / 16 / 16_000) ** 0.5
    for quarter in range(4):
        share = ((times * 4).long() == quarter).double().mean(dim=0)
        assert ((share - 1 / 4).abs() < 4 * spread).all()


def test_times_are_uniform_within_their_bins() -> None:
    times = draws(batch=4).times(torch.arange(40_000))
    inside = (times * 4) % 1
    assert abs(inside.mean() - 1 / 2) < 4 * (1 / 12) ** 0.5 / 200
    assert abs(inside.var() - 1 / 12) < 4 * (1 / 180) ** 0.5 / 200


@settings(deadline=None, max_examples=50, database=None)
@given(power=st.integers(4, 10), data=st.data())
def test_a_quarter_of_a_batch_hits_every_quarter_of_time_equally(
    power: int, data: st.DataObject
) -> None:
    batch = 2**power
    start = data.draw(st.integers(0, batch - batch // 4))
    times = draws(batch=batch).times(torch.arange(start, start + batch // 4))
    assert torch.histc(times, bins=4, min=0, max=1).tolist() == [batch // 16] * 4


def test_keys_are_64_bits_and_their_own_for_every_use() -> None:
    keys = [
        draws().key("a"),
        draws().key("b"),
        draws(seed=6).key("a"),
        draws(split="valid").key("a"),
    ]
    assert len(set(keys)) == 4
    assert len({key >> 32 for key in keys}) == 4
    assert len({key & FULL for key in keys}) == 4
    assert all(key >> 32 != key & FULL for key in keys)
    assert max(keys) < 2**64
    assert draws(batch=9).key("a") == keys[0]
