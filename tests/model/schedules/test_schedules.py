import dataclasses
import math
from typing import Any

import pytest
import torch

from configs.load import Plugin
from model.processes.absorbing import bound_weight
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

PLUGIN = Plugin("model.schedules")
SCHEDULES = [PLUGIN.build(name) for name in PLUGIN.names()]
BOTH = [s for schedule in SCHEDULES for s in (schedule, schedule.exact())]

anyone = pytest.mark.parametrize("schedule", BOTH, ids=repr)


def grid() -> torch.Tensor:
    return torch.linspace(0, 1, 1001, dtype=torch.float64)


def test_the_shipped_schedules_are_found() -> None:
    assert set(PLUGIN.names()) == {
        "cosine", "cosine_squared", "geometric", "linear", "log_uniform", "loglinear", "polynomial",
    }  # fmt: skip


@anyone
def test_alpha_falls_from_one_and_stays_a_probability(schedule: Any) -> None:
    alpha = schedule.alpha(grid())
    assert 0.99 <= alpha[0] <= 1
    assert (alpha.diff() < 0).all()
    assert alpha[-1] >= 0
    assert alpha[-1] < 0.01


@anyone
def test_dalpha_is_the_derivative_of_alpha(schedule: Any) -> None:
    t = grid().requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.dalpha(t.detach()), derivative, rtol=1e-12, atol=1e-12)


@anyone
def test_time_is_the_inverse_of_alpha(schedule: Any) -> None:
    t = grid()
    torch.testing.assert_close(schedule.time(schedule.alpha(t)), t, rtol=0, atol=3e-8)


@anyone
def test_shape_and_precision_are_those_of_the_argument(schedule: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        t = torch.rand(3, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
        for out in (schedule.alpha(t), schedule.dalpha(t), schedule.time(t)):
            assert (out.shape, out.dtype) == (t.shape, dtype)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_the_exact_schedule_runs_from_one_to_zero(schedule: Any) -> None:
    exact = schedule.exact()
    assert abs(exact.alpha(torch.tensor(1.0, dtype=torch.float64))) < 1e-15
    assert exact.alpha(torch.tensor(0.0, dtype=torch.float64)) == 1
    assert exact.exact() == exact
    # It is the schedule up to the constants.
    far = (exact.alpha(grid()) - schedule.alpha(grid())).abs().max()
    assert far < 0.02


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3])
def test_the_weight_of_loglinear_is_one_over_t_whatever_eps(eps: float) -> None:
    schedule, t = LogLinear(eps=eps), grid()[1:]
    weight = bound_weight(schedule.alpha(t), schedule.dalpha(t))
    torch.testing.assert_close(weight, 1 / t, rtol=1e-10, atol=0)


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3])
def test_eps_is_what_survives_at_the_end(eps: float) -> None:
    end = torch.tensor(1.0, dtype=torch.float64)
    assert LogLinear(eps=eps).alpha(end) == pytest.approx(eps, abs=1e-15)
    assert Cosine(eps=eps).alpha(end) == pytest.approx(eps, abs=1e-15)


def test_known_values_at_half_time() -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    assert Cosine(eps=0.0).alpha(half) == pytest.approx(math.sqrt(0.5), abs=1e-15)
    assert Cosine(eps=0.1).alpha(half) == pytest.approx(0.1 + 0.9 * math.sqrt(0.5), abs=1e-15)
    assert LogLinear(eps=0.0).alpha(half) == 0.5
    assert LogLinear(eps=0.1).alpha(half) == pytest.approx(0.55, abs=1e-15)


OUT_OF_RANGE: dict[str, tuple[float, ...]] = {
    "eps": (-0.1, 1.0),
    "power": (0.0, -1.0, 101.0),
    "sigma_max": (0.0, -1.0, 3.9),
    "sigma_min": (0.0, -1.0, 0.02),
    "least": (0.0, 0.02),
}
SETTINGS = [(type(one), field.name) for one in SCHEDULES for field in dataclasses.fields(one)]


@pytest.mark.parametrize(("kind", "setting"), SETTINGS)
def test_settings_under_which_it_would_not_fall_to_noise_are_refused(
    kind: Any, setting: str
) -> None:
    for value in OUT_OF_RANGE[setting]:
        with pytest.raises(ValueError, match=f"^{setting} must "):
            kind(**{setting: value})


def test_the_weight_of_log_uniform_is_constant() -> None:
    schedule = PLUGIN.build({"name": "log_uniform", "least": 1e-3})
    weight = bound_weight(schedule.alpha(grid()), schedule.dalpha(grid()))
    torch.testing.assert_close(weight, torch.full_like(weight, math.log(1000)), rtol=1e-12, atol=0)


def test_total_noise_is_that_of_mdlms_code() -> None:
    """noise_schedule.py: sigma of each schedule at t = 1/4, by its formulas."""
    t = torch.tensor(0.25, dtype=torch.float64)
    eps = 1e-3
    truth = {
        "loglinear": -math.log(1 - (1 - eps) / 4),
        "cosine": -math.log(eps + (1 - eps) * math.cos(math.pi / 8)),
        "cosine_squared": -math.log(eps + (1 - eps) * math.cos(math.pi / 8) ** 2),
        "linear": 2.5,
        "geometric": 1e-4**0.75 * 20**0.25,
        "polynomial": -math.log(eps + (1 - eps) * (1 - 1 / 16)),
        "log_uniform": -math.log(1 - 1e-3**0.75),
    }
    for schedule, name in zip(SCHEDULES, PLUGIN.names(), strict=True):
        assert -math.log(schedule.alpha(t)) == pytest.approx(truth[name], rel=1e-12)
