"""The Gaussian process: what the oracles of `verify` leave to be said, by drawing."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from configs.load import Plugin
from model.gaussian_samplers import plan
from model.gaussian_samplers.ddim import Ddim
from model.gaussian_samplers.ddpm import Ddpm
from model.processes import gaussian
from model.processes.gaussian import Gaussian

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
    abar = PROCESS.abar(torch.arange(2000))
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
    with pytest.raises(ValueError, match="only 10"):
        plan(10, 11)


SAMPLERS = Plugin("model.gaussian_samplers")


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
        x = sampler.step(
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


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_the_last_step_is_the_prediction(name: str) -> None:
    sampler = SAMPLERS.build(name)
    x0 = torch.tensor([1.0, -2.0])
    one = torch.tensor(1.0, dtype=torch.float64)

    def none() -> torch.Tensor:
        raise AssertionError("no noise is drawn")

    found = sampler.step(torch.zeros(2), x0, PROCESS.abar(torch.tensor(40)), one, none)
    torch.testing.assert_close(found, x0)


@pytest.mark.parametrize("name", SAMPLERS.names())
@pytest.mark.parametrize("settings", [{"steps": 0}, {"clamp_below": 1.5}])
def test_senseless_settings_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        SAMPLERS.resolve(name)(**settings)
