from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.categorical import Categorical
from model.draws import Draws

DRAWS = Draws(seed=0, split="sample", batch=1)


def random_logits(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=generator)


def test_log_prob_is_a_log_softmax() -> None:
    logits = random_logits(6, 9)
    ids = torch.tensor([0, 8, 3, 3, 5, 1])
    expected = logits.double().log_softmax(-1)[torch.arange(6), ids]
    found = Categorical(logits).log_prob(ids)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_log_prob_of_half_precision_logits_is_computed_in_float32() -> None:
    logits = random_logits(6, 9).bfloat16()
    ids = torch.zeros(6, dtype=torch.int64)
    found = Categorical(logits).log_prob(ids)
    assert found.dtype == torch.float32
    expected = logits.double().log_softmax(-1)[:, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_excluded_ids_have_no_probability_and_no_gradient() -> None:
    logits = random_logits(5, 8)
    logits[:, [2, 6, 7]] = -torch.inf
    leaf = logits.clone().requires_grad_()
    ids = torch.tensor([0, 1, 3, 4, 5])
    log_prob = Categorical(leaf).log_prob(ids)
    expected = logits[:, [0, 1, 3, 4, 5]].log_softmax(-1).diagonal()
    torch.testing.assert_close(log_prob, expected)
    log_prob.sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[:, [2, 6, 7]] == 0).all()
    assert (leaf.grad[:, [0, 1, 3, 4, 5]] != 0).all()
    assert (Categorical(logits).log_prob(torch.full((5,), 6)) == -torch.inf).all()


def sample_counts(probability: Tensor, num: int, temperature: float) -> Tensor:
    logits = probability.log().expand(num, -1)
    position = torch.arange(num) // 10
    column = torch.arange(num) % 10
    drawn = Categorical(logits).sample(DRAWS, "token", position, column, temperature)
    assert drawn.dtype == torch.int64
    return torch.bincount(drawn, minlength=len(probability))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_samples_follow_the_softmax(
    temperature: float, chi_square: Callable[[Tensor, Tensor], float]
) -> None:
    probability = torch.tensor([0.5, 0.25, 0.0, 0.15, 0.1 - 1.5e-3, 1e-3, 5e-4, 0.0])
    counts = sample_counts(probability, 40_000, temperature)
    expected = (probability.double().log() / temperature).softmax(-1)
    assert chi_square(counts, expected) < 4.5


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = random_logits(50, 7)
    index = torch.arange(50)
    drawn = Categorical(logits).sample(DRAWS, "token", index, index, 0.0)
    assert torch.equal(drawn, logits.argmax(-1))
    assert len(drawn.unique()) > 1


def test_excluded_ids_are_never_drawn_even_at_a_high_temperature() -> None:
    probability = torch.tensor([0.0, 0.9, 0.0, 0.1, 0.0])
    counts = sample_counts(probability, 20_000, 50.0)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[[1, 3]].min() > 9000


def test_a_draw_depends_on_its_position_and_column_alone() -> None:
    logits = random_logits(60, 12)
    position, column = torch.arange(60) // 6 + 2**33, torch.arange(60) % 6
    whole = Categorical(logits).sample(DRAWS, "token", position, column, 1.0)
    kept = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:25]
    part = Categorical(logits[kept]).sample(DRAWS, "token", position[kept], column[kept], 1.0)
    assert torch.equal(whole[kept], part)


@pytest.mark.parametrize("change", ["position", "column", "kind", "seed"])
def test_every_part_of_the_key_changes_the_draws(change: str) -> None:
    logits = torch.zeros(1, 500).expand(20, -1)
    position, column = torch.arange(20) // 5, torch.arange(20) % 5
    drawn = Categorical(logits).sample(DRAWS, "token", position, column, 1.0)
    assert len(drawn.unique()) > 16
    other = Categorical(logits).sample(
        Draws(seed=1, split="sample", batch=1) if change == "seed" else DRAWS,
        "other" if change == "kind" else "token",
        position + 5 if change == "position" else position,
        column + 8 if change == "column" else column,
        1.0,
    )
    assert (drawn == other).sum() <= 2


class ExtremeDraw(Draws):
    """Every uniform is as near to 1 as 50 bits can say."""

    def uniform_at(self, kind: str, position: Tensor, coordinate: Tensor) -> Tensor:
        position, coordinate = torch.broadcast_tensors(position, coordinate)
        return torch.full(position.shape, 1 - 2.0**-50, dtype=torch.float64)


@pytest.mark.parametrize(("handicap", "wins"), [(20.0, True), (33.0, True), (36.0, False)])
def test_draws_reach_into_the_tail_that_rare_tokens_need(handicap: float, wins: bool) -> None:
    # An id of probability e^-34.66 = 2^-50 at the end is just reached; in float32 one of e^-17.
    logits = torch.tensor([[0.0, -50.0, -50.0, -handicap]])
    zero = torch.zeros(1, dtype=torch.int64)
    extreme = ExtremeDraw(seed=0, split="sample", batch=1)
    drawn = Categorical(logits).sample(extreme, "token", zero, zero, 1.0)
    assert drawn.item() == (3 if wins else 0)


def test_rare_tokens_are_drawn_as_often_as_they_should() -> None:
    rare = 200
    probability = torch.full((rare + 1,), 3e-5)
    probability[0] = 1 - rare * 3e-5
    counts = sample_counts(probability, 5_000, 1.0)
    expected = 5_000 * rare * 3e-5
    assert abs(counts[1:].sum() - expected) < 4 * expected**0.5
    assert counts[1:].max() <= 4


def test_sampling_leaves_the_logits_as_they_are() -> None:
    logits = random_logits(4, 5).double()
    before = logits.clone()
    index = torch.arange(4)
    Categorical(logits).sample(DRAWS, "token", index, index, 0.7)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_over_all_uniforms_each_id_is_picked_in_its_share(temperature: float) -> None:
    num = 4000
    logits = torch.tensor([[-torch.inf, 0.3, -1.0, -torch.inf, 2.0, -3.0, -torch.inf]])
    uniform_N = (torch.arange(num) + 0.5).double() / num
    ids = Categorical(logits.expand(num, -1)).pick(uniform_N, temperature)
    share = torch.bincount(ids, minlength=7) / num
    torch.testing.assert_close(
        share, (logits[0] / temperature).softmax(-1), rtol=0, atol=1.01 / num
    )
    assert share[[0, 3, 6]].sum() == 0
    assert bool((ids.diff() >= 0).all())


def test_at_its_ends_a_uniform_picks_what_has_probability() -> None:
    logits = torch.full((2, 40), -torch.inf)
    logits[:, [3, 17, 30]] = torch.tensor([-700.0, 0.0, -700.0])
    ends = torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    assert Categorical(logits).pick(ends, 1.0).tolist() == [17, 17]
    logits[:, [3, 30]] = -30.0
    assert Categorical(logits).pick(ends, 1.0).tolist() == [3, 30]
    assert Categorical(logits).pick(ends, 0.0).tolist() == [17, 17]
    assert Categorical(logits[:0]).pick(ends[:0], 1.0).shape == (0,)


def test_picking_goes_by_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, uniform_M = random_logits(50, 30), DRAWS.uniform("u", torch.arange(50), 1)[:, 0]
    whole = Categorical(logits).pick(uniform_M, 1.0)
    monkeypatch.setattr("model.categorical.rows_at_once", lambda logits_MR: 7)
    assert torch.equal(Categorical(logits).pick(uniform_M, 1.0), whole)
