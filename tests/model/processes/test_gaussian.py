"""The Gaussian process: what the oracles of `verify` leave to be said, by drawing."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from model.processes import gaussian
from model.processes.gaussian import Gaussian
from model.samplers._gaussian import GaussianSampler, plan
from model.samplers.ddim import Ddim
from model.samplers.ddpm import Ddpm

PROCESS = Gaussian(schedule="sqrt", num_steps=2000)


@pytest.mark.parametrize("schedule", ["sqrt", "cosine", "linear"])
def test_the_signal_falls_from_almost_all_to_almost_nothing(schedule: Any) -> None:
    process = Gaussian(schedule=schedule, num_steps=1000)
    abar = process.abar(torch.arange(-1, 1000))
    assert abar.dtype == torch.float64
    assert float(abar[0]) == 1.0
    assert bool((abar.diff() < 0).all())
    assert float(abar[1]) > 0.97
    assert float(abar[-1]) < 1e-4


def test_a_level_and_its_index_are_inverse() -> None:
    index = torch.arange(-1, 2000)
    assert torch.equal(PROCESS.index(PROCESS.level(index).float().double()), index)
    assert float(PROCESS.level(torch.tensor(-1))) == 0.0
    assert float(PROCESS.level(torch.tensor(1999))) == 1.0


def test_a_step_to_the_same_index_moves_nothing() -> None:
    abar = PROCESS.abar(torch.arange(-1, 2000))
    move = gaussian.posterior(abar, abar)
    assert torch.equal(move.of_x, torch.ones_like(abar))
    for rest in (move.of_x0, move.small, move.large):
        assert torch.equal(rest, torch.zeros_like(abar))


def test_single_steps_are_ddpms() -> None:
    """Ho et al. 2020, eq. 7, and the two variances of section 3.2."""
    beta, abar = gaussian.betas("sqrt", 2000)[1:], PROCESS.abar(torch.arange(2000))
    move = gaussian.posterior(abar[1:], abar[:-1])
    torch.testing.assert_close(move.of_x0, abar[:-1].sqrt() * beta / (1 - abar[1:]))
    torch.testing.assert_close(move.of_x, (1 - beta).sqrt() * (1 - abar[:-1]) / (1 - abar[1:]))
    torch.testing.assert_close(move.large, beta)
    torch.testing.assert_close(move.small, beta * (1 - abar[:-1]) / (1 - abar[1:]))


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_outputs_of_all_kinds_mean_the_same_step(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    abar = PROCESS.abar(torch.tensor(700))
    x = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    output = gaussian.target(kind, x0, eps, abar)
    torch.testing.assert_close(gaussian.to_x0(kind, output, x, abar), x0)
    torch.testing.assert_close(gaussian.to_eps(x0, x, abar), eps)


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 2000])
def test_a_plan_goes_from_the_noisiest_index_to_clean(steps: int) -> None:
    indices = plan(2000, steps)
    assert indices[0] == 1999
    assert indices[-1] == -1
    assert len(indices) == steps + 1
    gaps = [a - b for a, b in pairwise(indices)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_more_steps_than_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at most 10"):
        plan(10, 11)


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize(
    "sampler", [Ddpm(variance="small"), Ddim(), Ddim(eta=0.5), Ddim(eta=1.0)], ids=str
)
def test_every_stride_keeps_the_marginals(sampler: Any, steps: int) -> None:
    """With x_0 known, x_j is N(sqrt(abar_j) x_0, 1 - abar_j) after every step, whatever came
    before; a chain of Gaussians, whose moments 40,000 draws give to a percent.
    """
    generator = torch.Generator().manual_seed(steps)
    size, x0 = 40_000, 1.5
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    process = Gaussian(schedule="cosine", num_steps=100)
    indices = plan(100, steps)
    x = x + process.abar(torch.tensor(99)).sqrt() * x0
    for i, j in pairwise(indices):
        x = sampler.move(
            x,
            torch.full_like(x, x0),
            process.abar(torch.tensor(i)),
            process.abar(torch.tensor(j)),
            lambda: torch.randn(size, generator=generator, dtype=torch.float64),
        )
        abar = float(process.abar(torch.tensor(j)))
        assert float(x.mean()) == pytest.approx(abar**0.5 * x0, abs=0.03)
        assert float(x.var()) == pytest.approx(1 - abar, abs=0.03)
    torch.testing.assert_close(x, torch.full_like(x, x0))


@pytest.mark.parametrize("sampler", [Ddpm(), Ddim(), Ddim(eta=1.0)], ids=str)
def test_the_last_step_is_the_prediction(sampler: GaussianSampler) -> None:
    x0 = torch.tensor([1.0, -2.0])
    one = torch.tensor(1.0, dtype=torch.float64)

    def none() -> torch.Tensor:
        raise AssertionError("no noise is drawn")

    found = sampler.move(torch.zeros(2), x0, PROCESS.abar(torch.tensor(40)), one, none)
    torch.testing.assert_close(found, x0)


@pytest.mark.parametrize(
    "sampler", [Ddpm(variance="small"), Ddpm(), Ddim(), Ddim(eta=0.5)], ids=str
)
def test_positions_at_levels_of_their_own_move_as_they_would_alone(
    sampler: GaussianSampler,
) -> None:
    """Six positions, each with its i and j: an ordinary stride, one that ends clean, one that
    stays where it is, one that is clean already; computed one by one beside it.
    """
    generator = torch.Generator().manual_seed(0)
    x, x0, noise = (torch.randn(2, 6, 3, generator=generator) for _ in range(3))
    i = torch.tensor([1999, 700, 40, 30, 30, -1])
    j = torch.tensor([1500, 690, -1, 30, -1, -1])
    moved = sampler.move(
        x, x0, PROCESS.abar(i)[None, :, None], PROCESS.abar(j)[None, :, None], lambda: noise
    )
    for place in range(6):
        abar_i, abar_j = float(PROCESS.abar(i[place])), float(PROCESS.abar(j[place]))
        before, clean, z = (t[:, place].double() for t in (x, x0, noise))
        if abar_i == abar_j:
            wanted = before
        elif abar_j == 1.0:
            wanted = clean
        else:
            ratio = abar_i / abar_j
            small = (1 - ratio) * (1 - abar_j) / (1 - abar_i)
            if isinstance(sampler, Ddpm):
                mean = ratio**0.5 * (1 - abar_j) / (1 - abar_i) * before
                mean += abar_j**0.5 * (1 - ratio) / (1 - abar_i) * clean
                variance = small if sampler.variance == "small" else 1 - ratio
            else:
                assert isinstance(sampler, Ddim)
                variance = sampler.eta**2 * small
                eps = (before - abar_i**0.5 * clean) / (1 - abar_i) ** 0.5
                mean = abar_j**0.5 * clean + (1 - abar_j - variance) ** 0.5 * eps
            wanted = mean + variance**0.5 * z
        torch.testing.assert_close(moved[:, place].double(), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(moved[:, [3, 5]], x[:, [3, 5]])


@pytest.mark.parametrize("kind", [Ddpm, Ddim])
@pytest.mark.parametrize("settings", [{"steps": 0}, {"clamp_below": 1.5}])
def test_senseless_settings_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind(**settings)
