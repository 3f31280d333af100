"""The uniform process: its marginals, its reverse step, and the bound where numbers end."""

import itertools
import math

import pytest
import torch

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.networks.config import ModelConfig
from model.processes.uniform import bound_density, corrupt, num_ids, posterior, random_ids

INSIDE = DiT(vocab_size=7, mask_id=2, width=2, num_heads=1)
OUTSIDE = DiT(vocab_size=7, width=2, num_heads=1)
MODELS = pytest.mark.parametrize("model", [INSIDE, OUTSIDE], ids=["mask inside", "mask outside"])


def answers(model: ModelConfig) -> list[int]:
    """The ids that the head may give."""
    return (~model.excluded_rows).nonzero()[:, 0].tolist()


@MODELS
def test_noise_is_over_the_ids_that_a_prediction_may_give(model: ModelConfig) -> None:
    num = num_ids(model)
    assert num == len(answers(model)) == (6 if model is INSIDE else 7)
    middle = (torch.arange(num).double() + 0.5) / num
    assert random_ids(middle, model).tolist() == answers(model)
    ends = torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    assert random_ids(ends, model).tolist() == [answers(model)[0], answers(model)[-1]]


@MODELS
@pytest.mark.parametrize("alpha", [1e-3, 0.4, 0.999])
def test_a_token_stays_with_alpha_or_by_chance(model: ModelConfig, alpha: float) -> None:
    rows, length, clean = 4, 50_000, 3
    uniform = Draws(seed=0, split="t", batch=1).uniform("u", torch.arange(rows), length)
    alphas = torch.full((rows, 1), alpha, dtype=torch.float64)
    noisy = corrupt(torch.full((rows, length), clean), alphas, uniform, model)
    counts = torch.bincount(noisy.flatten(), minlength=8)
    assert counts[[row for row in range(8) if row not in answers(model)]].sum() == 0
    for row in answers(model):
        known = alpha * (row == clean) + (1 - alpha) / num_ids(model)
        error = (known * (1 - known) / noisy.numel()) ** 0.5
        assert abs(counts[row] / noisy.numel() - known) < 4.5 * error


def test_the_ends_are_clean_and_pure_noise() -> None:
    ids = torch.arange(400).reshape(4, 100) % 7
    uniform = Draws(seed=0, split="t", batch=1).uniform("u", torch.arange(4), 100)
    ones = torch.ones(4, 1, dtype=torch.float64)
    assert torch.equal(corrupt(ids, ones, uniform, OUTSIDE), ids)
    assert torch.equal(corrupt(ids, 0 * ones, uniform, OUTSIDE), random_ids(uniform, OUTSIDE))


def logits(model: ModelConfig, rows: int) -> torch.Tensor:
    found = torch.full((rows, model.num_rows), -math.inf)
    number = torch.arange(rows)
    scores = Draws(seed=1, split="t", batch=1).uniform("logits", number, num_ids(model))
    found[:, answers(model)] = (5 * scores).float()
    return found


@MODELS
def test_the_reverse_step_is_bayes_rule_and_ends_at_the_prediction(model: ModelConfig) -> None:
    ids, num = answers(model), num_ids(model)
    x_theta = Categorical(logits(model, num))
    noisy = torch.tensor(ids)
    alphas = torch.linspace(1, 0, 6, dtype=torch.float64)
    for s, t in itertools.combinations(range(6), 2):
        found = posterior(x_theta, noisy, alphas[s], alphas[t], model).log_p().exp()
        step = alphas[t] / alphas[s] * torch.eye(num) + (1 - alphas[t] / alphas[s]) / num
        at_s = alphas[s] * x_theta.log_p().exp()[:, ids].double() + (1 - alphas[s]) / num
        both = at_s * step.T
        truth = both / both.sum(dim=1, keepdim=True)
        torch.testing.assert_close(found[:, ids].double(), truth, rtol=1e-5, atol=1e-7)
        assert found.sum(dim=1).tolist() == pytest.approx([1.0] * num, abs=1e-6)
    at_once = posterior(x_theta, noisy, alphas[0], alphas[-1], model)
    torch.testing.assert_close(at_once.log_p().exp(), x_theta.log_p().exp())


ALPHAS = (0.0, 1e-12, 1e-6, 1e-3, 0.5, 0.999, 1 - 1e-6, 1 - 1e-12, 1.0)


@pytest.mark.parametrize("num", [2, 27, 50257])
def test_the_bound_is_zero_at_the_truth_and_so_is_its_gradient(num: int) -> None:
    clean, noisy = torch.tensor([1, 1]), torch.tensor([1, 0])
    for alpha in ALPHAS:
        given = torch.full((2, num), -200.0)
        given[:, 1] = 3.0
        given.requires_grad_()
        alpha_M = torch.full((2,), alpha, dtype=torch.float64)
        found = bound_density(Categorical(given), clean, noisy, alpha_M)
        found.sum().backward()
        assert float(found.detach().abs().max()) < 1e-6
        assert given.grad is not None
        assert float(given.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("num", [2, 27, 5000])
def test_the_bound_of_any_prediction_is_finite_and_right_at_every_alpha(num: int) -> None:
    rows = 40
    number, half = torch.arange(rows), torch.arange(rows) < rows // 2
    draw = Draws(seed=2, split="t", batch=1)
    given = (6 * draw.uniform("logits", number, num)).float().requires_grad_()
    clean, other = ((num * draw.uniform(kind, number, 1)[:, 0]).long() for kind in "xz")
    noisy = torch.where(half, clean, other)
    for alpha in ALPHAS:
        alpha_M = torch.full((rows,), alpha, dtype=torch.float64)
        found = bound_density(Categorical(given), clean, noisy, alpha_M)
        (gradient,) = torch.autograd.grad(found.sum(), given)
        assert bool(found.isfinite().all())
        assert bool(gradient.isfinite().all())
        assert bool((found > -1e-6).all())
        if not 1e-6 <= alpha <= 1 - 1e-6:
            continue
        p = alpha * given.detach().double().softmax(1) + (1 - alpha) / num
        q = alpha * torch.nn.functional.one_hot(clean, num) + (1 - alpha) / num
        q_i, p_i = (x.gather(1, noisy[:, None])[:, 0] for x in (q, p))
        kl = (q * (q / p).log()).sum(1)
        truth = (kl + q_i / p_i - 1 - (q_i / p_i).log()) / (alpha * num * q_i)
        # What float32 logits leave unsaid of 1 - p is as large as that, times the weight.
        weight = (1 / (alpha * num * q_i)).clamp(min=1)
        assert float(((found.detach() - truth) / (truth.abs() + weight)).abs().max()) < 2e-6
