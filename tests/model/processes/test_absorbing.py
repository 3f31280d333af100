import torch

from model.draws import Draws
from model.processes.absorbing import bound_weight, corrupt, stay_masked

MASK = 9


def test_a_token_survives_with_probability_alpha() -> None:
    rows, length = 6, 20_000
    alpha_B1 = torch.tensor([0.001, 0.1, 0.3, 0.5, 0.9, 0.999], dtype=torch.float64)[:, None]
    ids = torch.arange(rows * length).reshape(rows, length) % MASK
    uniform = Draws(seed=0, split="t", batch=1).uniform("u", torch.arange(rows), length)
    noisy = corrupt(ids, alpha_B1, uniform, MASK)
    kept = noisy == ids
    assert torch.equal(kept, noisy != MASK)
    error = (alpha_B1 * (1 - alpha_B1) / length).sqrt()
    assert ((kept.double().mean(1, keepdim=True) - alpha_B1).abs() < 4 * error).all()


def test_every_token_may_have_an_alpha_of_its_own() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    alpha = torch.tensor([[1.0, 0.0, 0.6, 0.4]], dtype=torch.float64)
    uniform = torch.full((1, 4), 0.5, dtype=torch.float64)
    assert corrupt(ids, alpha, uniform, MASK).tolist() == [[1, MASK, 3, MASK]]


def test_alpha_one_is_clean_and_alpha_zero_all_masks() -> None:
    ids = torch.arange(400).reshape(4, 100) % MASK
    uniform = Draws(seed=0, split="t", batch=1).uniform("u", torch.arange(4), 100)
    ones = torch.ones(4, 1, dtype=torch.float64)
    assert torch.equal(corrupt(ids, ones, uniform, MASK), ids)
    assert (corrupt(ids, 0 * ones, uniform, MASK) == MASK).all()
    assert ids.max() == MASK - 1


def test_staying_masked_follows_from_bayes_rule() -> None:
    num, mask = 4, 3
    alpha = torch.linspace(1, 0, 6, dtype=torch.float64)

    def kernel(survival: torch.Tensor) -> torch.Tensor:
        step = survival * torch.eye(num, dtype=torch.float64)
        step[:, mask] += 1 - survival
        return step

    for s in range(len(alpha) - 1):
        for t in range(s + 1, len(alpha)):
            to_s, to_t = kernel(alpha[s]), kernel(alpha[t] / alpha[s])
            for clean in range(mask):
                joint = to_s[clean, :, None] * to_t
                torch.testing.assert_close(joint.sum(0), kernel(alpha[t])[clean])
                posterior = joint[mask, mask] / joint[:, mask].sum()
                torch.testing.assert_close(stay_masked(alpha[s], alpha[t]), posterior)


def test_the_weight_is_the_rate_at_which_the_masked_share_grows() -> None:
    masked = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).requires_grad_()
    t = masked**3
    (speed,) = torch.autograd.grad(t.log().sum(), masked)
    weight = bound_weight(1 - t.detach(), -3 * masked.detach() ** 2)
    torch.testing.assert_close(weight, speed)
