"""Estimators of the held-out bound: one mean, -log p with the true conditionals, by enumeration."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from masking import MODEL, batch, draws, row_losses, senseless, some_tokens
from torch import Tensor

from model.draws import Draws
from model.objectives.bd3lm import Bd3lm
from model.objectives.mdlm import Mdlm
from model.objectives.udlm import Udlm
from model.processes.masked_bound import ESTIMATORS, Estimator, bound_mask
from model.verification.scripted import Scripted
from model.verification.texts import legendre, mask_probability

FLOAT32 = 1e-6
"""Prediction.log_prob computes in float32."""

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases(Scripted):
    """Scripted draws whose times are the same, drawn evenly or each by itself."""

    def uniform(self, kind: str, position_B: Tensor, num: int) -> Tensor:
        if kind == "time":
            return self.times(position_B, num=num)
        return super().uniform(kind, position_B, num)


def cases(estimator: Estimator, free_L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All that can be drawn: times ``[W]``, uniforms ``[W, L]`` and their probabilities ``[W]``."""
    length, num = len(free_L), int(free_L.sum())
    if estimator == "stratified-time":
        time_T, share_T = legendre(length)  # exact: polynomials of degree below n
        pattern_ZL = torch.tensor(list(itertools.product([0.0, 1.0], repeat=length))).double()
        time_W = time_T.repeat_interleave(len(pattern_ZL))
        pattern_WL = pattern_ZL.repeat(len(time_T), 1)
        share_W = share_T.repeat_interleave(len(pattern_ZL))
        return time_W, 1 - pattern_WL, share_W * mask_probability(1 - time_W, pattern_WL)
    order_PL = torch.tensor(list(itertools.permutations(range(length)))).double()
    time_K = (torch.arange(num).double() + 0.5) / num
    time_W = time_K.repeat_interleave(len(order_PL))
    uniform_WL = ((order_PL + 0.5) / length).repeat(num, 1)
    return time_W, uniform_WL, torch.full_like(time_W, 1 / len(time_W))


def expected(
    estimator: Estimator, joint: Any, denoise: Denoise, x_L: Tensor, free_L: Tensor
) -> float:
    """Mean of the estimator over everything that it can draw."""
    time_W, uniform_WL, share_W = cases(estimator, free_L)
    num = len(time_W)
    given = batch(x_L.expand(num, -1)) | {"free": free_L.expand(num, -1)}
    drawn = Cases(time_B1=time_W[:, None], uniform_BL=uniform_WL)
    noisy = Mdlm(estimator=estimator).bound_corrupt(given, drawn, joint.config)
    return float((share_W * row_losses(denoise, noisy)).sum())


FREE = pytest.mark.parametrize(
    "free", [[True] * 3, [True, False, True], [False, True, False]], ids=["3", "2", "1"]
)


@FREE
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_the_true_conditionals_the_mean_is_the_likelihood(
    three_tokens: Any, estimator: Estimator, free: list[bool]
) -> None:
    free_L = torch.tensor(free)
    for x_L in three_tokens.outcomes[::4]:
        context_L = torch.where(free_L, three_tokens.mask, x_L)
        both = three_tokens.masked_log_prob(torch.stack((x_L, context_L)))
        found = expected(estimator, three_tokens, three_tokens.denoise, x_L, free_L)
        assert found == pytest.approx(float(both[1] - both[0]), rel=FLOAT32)


@FREE
def test_of_a_wrong_network_all_have_the_same_mean(three_tokens: Any, free: list[bool]) -> None:
    denoise, free_L = senseless(three_tokens), torch.tensor(free)
    for x_L in three_tokens.outcomes[::4]:
        exact, *others = (
            expected(estimator, three_tokens, denoise, x_L, free_L) for estimator in ESTIMATORS
        )
        assert others == pytest.approx([exact] * 2, rel=FLOAT32)


def test_what_the_network_is_told_of_the_time_does_not_part_them(three_tokens: Any) -> None:
    """A network that reads the level: the levels, too, have one distribution given the masks."""
    rows, x_L = 20_000, three_tokens.outcomes[11]
    given = batch(x_L.expand(rows, -1))
    given |= {"free": given["valid"]}

    def denoise(ids_BL: Tensor, level_BK: Tensor, predict_mask_BL: Tensor) -> Tensor:
        likely_M = torch.sin(7 * level_BK.double()).expand(ids_BL.shape)[predict_mask_BL]
        columns = [likely_M, 0 * likely_M, -likely_M, torch.full_like(likely_M, -torch.inf)]
        return torch.stack(columns, dim=1)

    means, errors = [], []
    for estimator in ESTIMATORS:
        noisy = Mdlm(estimator=estimator).bound_corrupt(given, draws(rows), three_tokens.config)
        losses = row_losses(denoise, noisy)
        means.append(losses.mean())
        errors.append(losses.std() / rows**0.5)
    for one, other in itertools.combinations(range(3), 2):
        assert abs(means[one] - means[other]) < 4 * torch.hypot(errors[one], errors[other])
    assert max(errors) < 0.03 * means[0]


def test_the_number_masked_is_stratified_or_each_texts_own_chance() -> None:
    rows = 600
    tokens = some_tokens(rows, 3)
    given = batch(tokens) | {"free": torch.ones_like(tokens, dtype=torch.bool)}

    def sizes(estimator: Estimator, drawn: Draws) -> list[int]:
        noisy = Mdlm(estimator=estimator).bound_corrupt(given, drawn, MODEL)
        return noisy.predict_mask_BL.sum(dim=1).bincount(minlength=4).tolist()

    assert sizes("exact-k", draws(rows)) == [0, 200, 200, 200]
    own = sizes("fixed-l", draws(rows))
    assert own[0] == 0
    assert own != [0, 200, 200, 200]
    assert all(abs(number - 200) < 4 * (rows * 2 / 9) ** 0.5 for number in own[1:])
    by_time = sizes("stratified-time", draws(rows))
    assert all(abs(number - 150) < 4 * (rows * 3 / 16) ** 0.5 for number in by_time)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_in_blocks_each_block_has_its_own_number(estimator: Estimator, size: int) -> None:
    rows, length = 3000, 5
    tokens = some_tokens(rows, length)
    given = batch(tokens) | {"free": torch.ones_like(tokens, dtype=torch.bool)}
    objective = Bd3lm(block_size=size, estimator=estimator)
    noisy = objective.bound_corrupt(given, draws(rows), MODEL)
    for first in range(0, length, size):
        block_BL = noisy.predict_mask_BL[:, first : min(first + size, length)]
        weight_B = noisy.weight_BK[:, first].double()
        # Each token is masked at rate t with weight 1/t, or k of n times with n/k: mean 1 each.
        # Their variance is infinite where the time comes first, hence the wide margin.
        share_L = (weight_B[:, None] * block_BL).mean(dim=0)
        margin = 0.5 if estimator == "stratified-time" else 0.15
        assert ((share_L - 1).abs() < margin).all()
        if estimator != "stratified-time":
            assert (block_BL.sum(dim=1) >= 1).all()


def test_rows_without_hidden_tokens_have_no_loss() -> None:
    hidden = torch.zeros(2, 3, dtype=torch.bool)
    for estimator in ESTIMATORS:
        masked, rate, weight = bound_mask(
            estimator, hidden, torch.tensor([[0.2], [0.9]]), torch.full((2, 3), 0.1)
        )
        assert not masked.any()
        assert rate.isfinite().all()
        assert weight.isfinite().all()


def test_an_objective_names_the_estimators_that_it_has() -> None:
    assert Mdlm.estimators == Bd3lm.estimators == ("exact-k", "stratified-time", "fixed-l")
    assert Udlm.estimators == ()
