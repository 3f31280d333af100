"""Formulas over a vocabulary that is split over ranks: values, and the gradient of every input.

Truth is one rank with double precision and PyTorch's own functions. A sum that is missing in
the backward pass changes no value, only a gradient.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.categorical import AllRows, Categorical, Rows
from model.draws import Draws
from model.processes import uniform
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.mesh import Mesh

M, R, E = 6, 16, 5
EXCLUDED = [13, 14, 15]
IDS = torch.tensor([0, 3, 4, 7, 8, 12])
NOISY = torch.tensor([0, 5, 4, 11, 1, 12])
ALPHA = torch.tensor([0.9, 0.9, 0.2, 0.2, 0.5, 0.5], dtype=torch.float64)
DRAWS = Draws(seed=0, split="test", batch=M)

Inputs = dict[str, Tensor]
Formula = Callable[[Categorical, Categorical, Tensor, Tensor], Tensor]


def inputs() -> Inputs:
    """Logits of two categoricals, a table's rows, and a value that all ranks hold alike."""
    generator = torch.Generator().manual_seed(0)
    logits_MR, other_MR = (2 * torch.randn(M, R, generator=generator) for _ in range(2))
    for excluded in (logits_MR, other_MR):
        excluded[:, EXCLUDED] = -torch.inf
    return {
        "logits": logits_MR,
        "other": other_MR,
        "table": torch.randn(R, E, generator=generator),
        "alike": torch.rand(M, generator=generator),
    }


def allowed(x_MR: Tensor) -> Tensor:
    """0 in the place of -inf."""
    return x_MR.masked_fill(x_MR == -torch.inf, 0.0)


FORMULAS: dict[str, tuple[Formula, Formula]] = {
    # name: (ours, PyTorch's of logits, other logits, table and value)
    "log_prob": (lambda p, q, t, a: p.log_prob(IDS), lambda p, q, t, a: at(p.log_softmax(1))),
    "logsumexp": (lambda p, q, t, a: p.logsumexp(), lambda p, q, t, a: p.logsumexp(1)),
    "at": (lambda p, q, t, a: p.at(p.logits_MR, IDS), lambda p, q, t, a: at(p)),
    "log_p at": (
        lambda p, q, t, a: p.at(p.log_p(), IDS),
        lambda p, q, t, a: at(p.log_softmax(1)),
    ),
    "one_hot": (
        lambda p, q, t, a: p.total(p.one_hot(IDS) * allowed(p.logits_MR)),
        lambda p, q, t, a: at(p),
    ),
    "entropy": (
        lambda p, q, t, a: p.entropy(),
        lambda p, q, t, a: -(p.softmax(1) * allowed(p.log_softmax(1))).sum(1),
    ),
    "kl": (
        lambda p, q, t, a: p.kl(q),
        lambda p, q, t, a: (
            p.softmax(1) * (allowed(p.log_softmax(1)) - allowed(q.log_softmax(1)))
        ).sum(1),
    ),
    "mean": (
        lambda p, q, t, a: p.mean(t).square().sum(1),
        lambda p, q, t, a: (p.softmax(1) @ t).square().sum(1),
    ),
    "guided in log p": (
        lambda p, q, t, a: p.guided(q, 2.5, "log_p").log_prob(IDS),
        lambda p, q, t, a: at((-1.5 * allowed(q) + 2.5 * allowed(p)).masked_fill(
            p == -torch.inf, -torch.inf
        ).log_softmax(1)),
    ),
    "guided in p": (
        lambda p, q, t, a: p.guided(q, 0.4, "p").entropy(),
        lambda p, q, t, a: torch.distributions.Categorical(
            probs=0.6 * q.softmax(1) + 0.4 * p.softmax(1)
        ).entropy(),
    ),
    # A value that all ranks hold alike, back among the rows: wrong in the gradient without spread.
    "spread": (
        lambda p, q, t, a: p.total((p.log_p().exp() * p.spread(a)).square()),
        lambda p, q, t, a: (p.softmax(1) * a[:, None]).square().sum(1),
    ),
    "spread of log p": (
        lambda p, q, t, a: p.total((p.log_p().exp() - p.spread(p.log_prob(IDS).exp())).abs()),
        lambda p, q, t, a: (p.softmax(1) - at(p.softmax(1))[:, None]).abs().sum(1),
    ),
    "bound of uniform noise": (
        lambda p, q, t, a: uniform.bound_density(p, IDS, NOISY, ALPHA),
        lambda p, q, t, a: uniform_bound(p.softmax(1)[:, : EXCLUDED[0]]),
    ),
}  # fmt: skip


def uniform_bound(x_theta_MV: Tensor) -> Tensor:
    """(KL(q || p) + r - 1 - log r) / (alpha V q_i), as it stands."""
    num = x_theta_MV.shape[1]
    clean_MV = torch.nn.functional.one_hot(IDS, num).double()
    q_MV, p_MV = (ALPHA[:, None] * x + (1 - ALPHA[:, None]) / num for x in (clean_MV, x_theta_MV))
    q_M, p_M = (x.gather(1, NOISY[:, None])[:, 0] for x in (q_MV, p_MV))
    kl_M = (q_MV * (q_MV / p_MV).log()).sum(1)
    return (kl_M + q_M / p_M - 1 - (q_M / p_M).log()) / (ALPHA * num * q_M)


def at(x_MR: Tensor) -> Tensor:
    return x_MR.gather(1, IDS[:, None])[:, 0]


def found(name: str, given: Inputs, rows: Rows, num_here: int) -> Inputs:
    """The value of a formula, and the gradients of its inputs, of this rank's rows."""
    here = slice(rows.first, rows.first + num_here)
    leaves = {
        "logits": given["logits"][:, here].clone().requires_grad_(),
        "other": given["other"][:, here].clone().requires_grad_(),
        "table": given["table"][here].clone().requires_grad_(),
        "alike": given["alike"].clone().requires_grad_(),
    }
    p, q = (Categorical(leaves[key], rows) for key in ("logits", "other"))
    value_M = FORMULAS[name][0](p, q, leaves["table"], leaves["alike"])
    return {"value": value_M.detach(), **gradients(value_M, leaves)}


def true(name: str, given: Inputs) -> Inputs:
    """The same by PyTorch, in double precision."""
    leaves = {key: value.double().requires_grad_() for key, value in given.items()}
    value_M = FORMULAS[name][1](*leaves.values())
    return {"value": value_M.detach(), **gradients(value_M, leaves)}


def gradients(value_M: Tensor, leaves: Inputs) -> Inputs:
    (value_M * torch.linspace(-1, 2, M)).sum().backward()
    return {
        key: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for key, leaf in leaves.items()
    }


def all_found(world: World, tensor: int) -> list[Inputs]:
    """Of every formula, on one of the tensor-parallel ranks."""
    mesh = Mesh(world, tensor=tensor)
    rows: Rows = AllRows(R)
    if tensor > 1:
        from pretrain.parallel.tensor import ShardedRows, TensorFactory

        TensorFactory(mesh, sequence_parallel=False)
        rows = ShardedRows(mesh.tensor_group, R // tensor)
    results = [found(name, inputs(), rows, R // tensor) for name in FORMULAS]
    mesh.close()
    return results


def drawn(world: World, tensor: int) -> list[Tensor]:
    """What is drawn of what is left of the vocabulary."""
    mesh = Mesh(world, tensor=tensor)
    from pretrain.parallel.tensor import ShardedRows, TensorFactory

    TensorFactory(mesh, sequence_parallel=False)
    rows = ShardedRows(mesh.tensor_group, R // tensor)
    results = draws_of(inputs()["logits"].chunk(tensor, dim=1)[mesh.tensor_rank], rows)
    mesh.close()
    return results


def draws_of(logits_MR: Tensor, rows: Rows) -> list[Tensor]:
    p, place = Categorical(logits_MR, rows), torch.arange(M)
    several = (p, p.top_p(0.3), p.top_p(0.9), p.top_k(1), p.top_k(5))
    ids = [one.sample(DRAWS, "token", place, place, 1.0) for one in several]
    u_N = (torch.arange(200 * M) + 0.5).double() / (200 * M)
    repeated = Categorical(logits_MR.repeat_interleave(200, dim=0), rows)
    ids += [repeated.pick(u_N, temperature) for temperature in (0.0, 0.5, 1.0)]
    return [*ids, p.sample(DRAWS, "token", place, place, 0.0), *p.best()]


def close(mine: Tensor, truth: Tensor) -> None:
    torch.testing.assert_close(mine.double(), truth, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_split_vocabulary_changes_no_value_and_no_gradient(pool: Pool, size: int) -> None:
    ranks = pool.run(size, all_found, size)
    for number, name in enumerate(FORMULAS):
        truth = true(name, inputs())
        for rank, results in enumerate(ranks):
            for key, value in results[number].items():
                whole = truth[key]
                if key in ("logits", "other"):
                    whole = whole.chunk(size, dim=1)[rank]
                elif key == "table":
                    whole = whole.chunk(size)[rank]
                torch.testing.assert_close(
                    value.double(), whole, rtol=2e-6, atol=2e-6,
                    msg=lambda told, what=(name, key): f"{what}: {told}",
                )  # fmt: skip


@pytest.mark.parametrize("size", [2, 4])
def test_a_split_vocabulary_changes_no_draw(pool: Pool, size: int) -> None:
    truth = draws_of(inputs()["logits"], AllRows(R))
    for results in pool.run(size, drawn, size):
        *ids, log_p = results
        assert all(torch.equal(one, other) for one, other in zip(ids, truth, strict=False))
        close(log_p, truth[-1].double())


def test_nucleus_and_likeliest() -> None:
    p = Categorical(torch.tensor([[0.5, 0.25, 0.125, 0.125, 0.0]]).log())
    for share, num in ((0.4, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 4), (1.0, 4)):
        assert (p.top_p(share).logits_MR > -torch.inf).sum() == num, share
    for num, kept in ((1, 1), (2, 2), (3, 4), (9, 5)):
        assert (p.top_k(num).logits_MR > -torch.inf).sum() in (kept, min(kept, 4))
    ids, log_p = p.best()
    assert ids.tolist() == [0]
    assert log_p.exp().tolist() == pytest.approx([0.5])
    for wrong in (0.0, 1.1, -1.0):
        with pytest.raises(ValueError, match="top_p must lie in"):
            p.top_p(wrong)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        p.top_k(0)


def test_guidance_by_known_answers() -> None:
    one, other = (Categorical(torch.tensor([p]).log()) for p in ([0.8, 0.2, 0.0], [0.5, 0.3, 0.2]))
    for space in ("log_p", "p"):
        kept = one.guided(other, 1.0, space).log_p().exp()
        torch.testing.assert_close(kept, torch.tensor([[0.8, 0.2, 0.0]]))
    doubled = one.guided(other, 2.0, "log_p").log_p().exp()  # 0.64 / 0.5 to 0.04 / 0.3
    weights = torch.tensor([[1.28, 0.04 / 0.3, 0.0]])
    torch.testing.assert_close(doubled, weights / weights.sum())
    added = one.guided(other, 2.0, "p").log_p().exp()  # 1.1 to 0.1, and none below 0
    torch.testing.assert_close(added, torch.tensor([[1.1, 0.1, 0.0]]) / 1.2)


def test_what_is_excluded_there_is_infinitely_far() -> None:
    p = Categorical(torch.tensor([[0.0, 0.0, -torch.inf]]))
    q = Categorical(torch.tensor([[0.0, -torch.inf, 0.0]]))
    assert p.kl(q).tolist() == [torch.inf]
    assert p.kl(p).tolist() == [0.0]
