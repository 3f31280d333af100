import pytest
import torch

from model.time_sampling import SecondMoment

SAMPLER = SecondMoment(num_steps=5, history=3)


def full(losses: list[float]) -> dict[str, torch.Tensor]:
    state = SAMPLER.init_state()
    for _ in range(SAMPLER.history):
        state = SAMPLER.update_state(state, torch.arange(5), torch.tensor(losses))
    return state


def test_times_are_even_until_every_index_has_its_history() -> None:
    state = SAMPLER.init_state()
    for _ in range(SAMPLER.history):
        assert torch.equal(SAMPLER.probabilities(state), torch.full((5,), 0.2, dtype=torch.float64))
        state = SAMPLER.update_state(state, torch.arange(4), torch.ones(4))
    assert torch.equal(SAMPLER.probabilities(state), torch.full((5,), 0.2, dtype=torch.float64))
    state = SAMPLER.update_state(state, torch.tensor([4, 4, 4]), torch.tensor([2.0, 2.0, 2.0]))
    p = SAMPLER.probabilities(state)
    assert float(p[4] / p[0]) == pytest.approx(2.0, rel=1e-2)


def test_probabilities_are_roots_of_second_moments_with_a_little_uniform() -> None:
    """Losses 1, 2, 3 of an index: the root of 14 / 3."""
    state = SAMPLER.init_state()
    for factor in (1.0, 2.0, 3.0):
        state = SAMPLER.update_state(state, torch.arange(5), factor * torch.arange(1.0, 6.0))
    root = torch.arange(1.0, 6.0).double() * (14 / 3) ** 0.5
    expected = 0.999 * root / root.sum() + 0.001 / 5
    torch.testing.assert_close(SAMPLER.probabilities(state), expected)


def test_weights_undo_the_choice() -> None:
    losses = torch.tensor([0.1, 3.0, 0.5, 7.0, 1.0])
    u = (torch.arange(200_000).double() + 0.5)[:, None] / 200_000
    index, weight = SAMPLER.draw(u, full(losses.tolist()))
    mean = float((weight * losses[index]).mean())
    assert mean == pytest.approx(float(losses.mean()), rel=1e-4)
    counts = torch.bincount(index[:, 0], minlength=5) / len(u)
    torch.testing.assert_close(
        counts.double(), SAMPLER.probabilities(full(losses.tolist())), rtol=1e-3, atol=1e-4
    )


def test_the_oldest_loss_goes_and_the_argument_stays() -> None:
    before = full([1.0] * 5)
    after = SAMPLER.update_state(before, torch.tensor([2, 2]), torch.tensor([8.0, 9.0]))
    assert sorted(after["losses"][2].tolist()) == [1.0, 8.0, 9.0]
    assert before["losses"][2].tolist() == [1.0] * 3
    after = SAMPLER.update_state(after, torch.tensor([2]), torch.tensor([10.0]))
    assert sorted(after["losses"][2].tolist()) == [8.0, 9.0, 10.0]
