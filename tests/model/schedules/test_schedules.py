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
    assert {"cosine", "loglinear"} <= set(PLUGIN.names())


@anyone
def test_alpha_falls_from_one_and_stays_a_probability(schedule: Any) -> None:
    alpha = schedule.alpha(grid())
    assert alpha[0] == 1
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
def test_the_exact_schedule_ends_at_zero(schedule: Any) -> None:
    exact = schedule.exact()
    assert abs(exact.alpha(torch.tensor(1.0, dtype=torch.float64))) < 1e-15
    assert exact.exact() == exact
    assert type(exact) is type(schedule)


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


@pytest.mark.parametrize("name", ["cosine", "loglinear"])
@pytest.mark.parametrize("eps", [-0.1, 1.0])
def test_eps_outside_its_range_is_refused(name: str, eps: float) -> None:
    with pytest.raises(ValueError, match="eps must lie in"):
        PLUGIN.build({"name": name, "eps": eps})
