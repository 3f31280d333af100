import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.load import Plugin
from model.categorical import Categorical
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import LEVEL_BUCKETS, Noisy, sum_losses
from model.objectives.mdlm import Mdlm
from model.prediction import Prediction
from model.processes.absorbing import bound_weight
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear

ChiSquare = Callable[[Tensor, Tensor], float]

VOCAB = 7
MODEL = ModelConfig(vocab_size=VOCAB, width=2, num_heads=1)
PLUGIN = Plugin("model.schedules")
SCHEDULES = [PLUGIN.build(name) for name in PLUGIN.names()]

FLOAT32 = 1e-6
"""Prediction.log_prob computes in float32, so no identity through it holds more closely."""


def draws(batch: int, seed: int = 0) -> Draws:
    return Draws(seed=seed, split="test", batch=batch)


def batch(tokens: Tensor, valid: Tensor | None = None, start: int = 0) -> dict[str, Tensor]:
    return {
        "tokens": tokens,
        "valid": torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid,
        "position": start + torch.arange(len(tokens)),
    }


def some_tokens(rows: int, length: int, vocab: int = VOCAB) -> Tensor:
    return torch.randint(vocab, (rows, length), generator=torch.Generator().manual_seed(rows))


def noisy_of(tokens: Tensor, where: Tensor, weight: Tensor, mask: int) -> Noisy:
    return Noisy(
        ids_BL=torch.where(where, mask, tokens),
        level_BK=torch.full((len(tokens), 1), 0.5),
        predict_mask_BL=where,
        position_B=torch.arange(len(tokens)),
        target_BL=tokens,
        weight_BK=weight,
        over_BL=torch.ones_like(where),
    )


def row_losses(denoise: Callable[..., Tensor], noisy: Noisy) -> Tensor:
    """The loss of every sample, ``[B]`` float64."""
    logits = denoise(noisy.ids_BL, noisy.level_BK, noisy.predict_mask_BL)
    losses = Mdlm().bound_losses(Prediction(logits=Categorical(logits)), noisy)
    zeros = torch.zeros(len(noisy.ids_BL), dtype=torch.float64)
    return zeros.index_add(0, noisy.predict_mask_BL.nonzero()[:, 0], losses.double())


def subsets(num: int, size: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(num), size))


def enumerated_bound(joint: Any, denoise: Callable[..., Tensor], x_L: Tensor, free: list[int]):
    """Mean over k = 1..n and over the masks of k free tokens of the loss with weight n / k."""
    per_size = []
    for size in range(1, len(free) + 1):
        masks = subsets(len(free), size)
        where = torch.zeros(len(masks), len(x_L), dtype=torch.bool)
        for row, chosen in enumerate(masks):
            where[row, [free[i] for i in chosen]] = True
        weight = torch.full((len(masks), 1), len(free) / size, dtype=torch.float64)
        noisy = noisy_of(x_L.expand(len(masks), -1), where, weight, joint.mask)
        per_size.append(row_losses(denoise, noisy).mean())
    return torch.stack(per_size).mean()


def arbitrary_denoise(joint: Any) -> Callable[..., Tensor]:
    """A network that is wrong: its logits depend on all it sees, in no sensible way."""

    def denoise(ids_BL: Tensor, level_BK: Tensor, predict_mask_BL: Tensor) -> Tensor:
        code_B = (ids_BL * 5 ** torch.arange(ids_BL.shape[1])).sum(1)
        place_LV = torch.arange(ids_BL.shape[1] * joint.vocab).view(-1, joint.vocab)
        logits_BLV = torch.sin(code_B[:, None, None] + 1.7 * place_LV).double()
        return torch.nn.functional.pad(logits_BLV[predict_mask_BL], (0, 1), value=-torch.inf)

    return denoise


def test_the_bound_with_the_true_conditionals_is_the_likelihood_of_every_sequence(
    three_tokens: Any, two_tokens: Any
) -> None:
    for joint in (three_tokens, two_tokens):
        free = list(range(joint.length))
        for x_L, p in zip(joint.outcomes, joint.p.flatten(), strict=True):
            bound = enumerated_bound(joint, joint.denoise, x_L, free)
            assert bound == pytest.approx(-math.log(p), rel=FLOAT32)


def test_the_bound_of_a_wrong_network_is_loose_on_average(three_tokens: Any) -> None:
    bounds = [
        enumerated_bound(three_tokens, arbitrary_denoise(three_tokens), x_L, [0, 1, 2])
        for x_L in three_tokens.outcomes
    ]
    p = three_tokens.p.flatten()
    entropy = -(p * p.log()).sum()
    assert (p * torch.stack(bounds)).sum() > entropy + 0.1


def test_the_bound_of_the_free_tokens_is_their_likelihood_given_the_others(
    three_tokens: Any,
) -> None:
    for free in ([0], [1, 2], [0, 2]):
        for x_L in three_tokens.outcomes[::4]:
            context = x_L.clone()
            context[free] = three_tokens.mask
            both = three_tokens.masked_log_prob(torch.stack((x_L, context)))
            bound = enumerated_bound(three_tokens, three_tokens.denoise, x_L, free)
            assert bound == pytest.approx(float(both[1] - both[0]), rel=FLOAT32)


def test_the_published_numbers_of_two_tokens(two_tokens: Any) -> None:
    outcomes, p = two_tokens.outcomes, two_tokens.p.flatten()
    means = []
    for size in (1, 2):
        masks = [torch.tensor([i in chosen for i in range(2)]) for chosen in subsets(2, size)]
        losses = [
            row_losses(
                two_tokens.denoise,
                noisy_of(outcomes, mask.expand(4, 2), torch.ones(4, 1), two_tokens.mask),
            )
            for mask in masks
        ]
        means.append(torch.stack(losses).mean(0))
    g_1, g_2 = means
    assert g_1.tolist() == pytest.approx(
        [0.314304330, 1.497866137, 1.007451510, 0.399253848], rel=FLOAT32
    )
    assert g_2.tolist() == pytest.approx(
        [1.203972804, 1.609437912, 1.203972804, 1.609437912], rel=FLOAT32
    )
    assert (p * (g_1 + g_2 / 2)).sum() == pytest.approx(1.2798542258, rel=FLOAT32)


def test_the_integral_over_time_is_the_same_under_every_schedule(three_tokens: Any) -> None:
    node, node_weight = torch.linalg.eigh(
        torch.diag(k := torch.arange(1, 64).double() / (4 * torch.arange(1, 64) ** 2 - 1).sqrt(), 1)
        + torch.diag(k, -1)
    )
    time_T = (node + 1) / 2
    weight_T = node_weight[0] ** 2
    denoise = arbitrary_denoise(three_tokens)
    x_L = torch.tensor([2, 0, 1])
    where = torch.tensor(list(itertools.product([False, True], repeat=3)))
    masked = where.sum(1)
    expected = enumerated_bound(three_tokens, denoise, x_L, [0, 1, 2])
    for schedule in SCHEDULES:
        exact = schedule.exact()
        alpha_T, dalpha_T = exact.alpha(time_T), exact.dalpha(time_T)
        integral = torch.zeros((), dtype=torch.float64)
        for t in range(len(time_T)):
            probability = alpha_T[t] ** (3 - masked) * (1 - alpha_T[t]) ** masked
            weight = bound_weight(alpha_T[t], dalpha_T[t]).expand(8, 1)
            noisy = noisy_of(x_L.expand(8, 3), where, weight, three_tokens.mask)
            integral += weight_T[t] * (probability * row_losses(denoise, noisy)).sum()
        assert integral == pytest.approx(float(expected), rel=1e-5)


def free_pattern(num: int, length: int) -> list[bool]:
    return [(17 * i) % length < num for i in range(length)]


@pytest.mark.parametrize("num", [1, 2, 4, 5])
def test_the_evaluation_masks_a_uniform_subset_of_uniform_size(
    num: int, chi_square: ChiSquare
) -> None:
    rows, length = 3000, 5
    free = torch.tensor(free_pattern(num, length)).expand(rows, length)
    assert free[0].sum() == num
    tokens = some_tokens(rows, length)
    noisy = Mdlm().bound_corrupt(batch(tokens), free, draws(rows), MODEL)
    size = noisy.predict_mask_BL.sum(1)
    assert torch.bincount(size, minlength=num + 1).tolist() == [0] + [rows // num] * num
    assert not (noisy.predict_mask_BL & ~free).any()
    code = (noisy.predict_mask_BL * 2 ** torch.arange(length)).sum(1)
    for k in range(1, num + 1):
        chosen = torch.bincount(code[size == k], minlength=2**length)
        chosen = chosen[chosen > 0]
        assert len(chosen) == math.comb(num, k)
        if len(chosen) > 1:
            assert chi_square(chosen, torch.ones(len(chosen)) / len(chosen)) < 4.5


def test_evaluation_rows_of_different_free_counts_do_not_mix() -> None:
    rows, length = 700, 6
    tokens = some_tokens(rows, length)
    num = torch.arange(rows) % (length + 1)
    free = torch.stack([torch.tensor(free_pattern(int(n), length)) for n in num])
    assert torch.equal(free.sum(1), num)
    noisy = Mdlm().bound_corrupt(batch(tokens), free, draws(rows), MODEL)
    size = noisy.predict_mask_BL.sum(1)
    assert ((size >= 1) == (num >= 1)).all()
    assert not (noisy.predict_mask_BL & ~free).any()
    assert torch.equal(noisy.ids_BL, torch.where(noisy.predict_mask_BL, MODEL.mask, tokens))
    assert torch.equal(noisy.target_BL, tokens)
    assert noisy.count() == num.sum()
    assert noisy.weight_BK.isfinite().all()
    assert noisy.level_BK.isfinite().all()
    some = num > 0
    torch.testing.assert_close(noisy.weight_BK[some, 0], (num / size)[some])
    row = 5
    alone = {key: value[row : row + 1] for key, value in batch(tokens).items()}
    single = Mdlm().bound_corrupt(alone, free[row : row + 1], draws(rows), MODEL)
    assert torch.equal(single.ids_BL, noisy.ids_BL[row : row + 1])
    assert torch.equal(single.level_BK, noisy.level_BK[row : row + 1])
    assert torch.equal(single.weight_BK, noisy.weight_BK[row : row + 1])


def test_an_evaluation_without_free_tokens_scores_nothing() -> None:
    tokens = some_tokens(3, 4)
    free = torch.zeros(3, 4, dtype=torch.bool)
    noisy = Mdlm().bound_corrupt(batch(tokens), free, draws(3), MODEL)
    assert noisy.count() == 0
    assert torch.equal(noisy.ids_BL, tokens)
    assert row_losses(constant(torch.zeros(VOCAB)), noisy).tolist() == [0, 0, 0]


@pytest.mark.parametrize("schedule", [*SCHEDULES, LogLinear(eps=0.3), Cosine(eps=0.3)], ids=repr)
def test_the_level_of_an_evaluation_is_a_beta_order_statistic(schedule: Any) -> None:
    rows, length, num = 4000, 6, 4
    free = torch.tensor(free_pattern(num, length)).expand(rows, length)
    noisy = Mdlm(schedule=schedule).bound_corrupt(
        batch(some_tokens(rows, length)), free, draws(rows), MODEL
    )
    masked_share = 1 - schedule.exact().alpha(noisy.level_BK[:, 0].double())
    size = noisy.predict_mask_BL.sum(1)
    for k in range(1, num + 1):
        share = masked_share[size == k]
        mean = k / (num + 1)
        variance = mean * (1 - mean) / (num + 2)
        assert abs(share.mean() - mean) < 4 * (variance / len(share)) ** 0.5
        assert share.var() == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("free", [[True] * 3, [True, False, True]], ids=["whole", "prompted"])
def test_the_sampled_bound_converges_to_the_likelihood(
    three_tokens: Any, schedule: Any, free: list[bool]
) -> None:
    rows = 3000
    for x_L in three_tokens.outcomes[::7]:
        tokens = x_L.expand(rows, 3)
        free_BL = torch.tensor(free).expand(rows, 3)
        noisy = Mdlm(schedule=schedule).bound_corrupt(
            batch(tokens), free_BL, draws(rows), three_tokens.config
        )
        losses = row_losses(three_tokens.denoise, noisy)
        context = torch.where(torch.tensor(free), three_tokens.mask, x_L)
        both = three_tokens.masked_log_prob(torch.stack((x_L, context)))
        error = float(losses.std()) / rows**0.5
        assert abs(losses.mean() - (both[1] - both[0])) < 4 * error
        assert error < 0.04


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("kind", [LogLinear, Cosine])
@pytest.mark.parametrize("t_min", [0.0, 0.4])
def test_training_masks_with_probability_one_minus_alpha(
    eps: float, kind: Any, t_min: float
) -> None:
    rows, length = 400, 32
    schedule = kind(eps=eps)
    noisy = Mdlm(schedule=schedule, t_min=t_min).corrupt(
        batch(some_tokens(rows, length)), draws(rows), MODEL
    )
    t = noisy.level_BK[:, 0].double()
    assert sorted(((t - t_min) / (1 - t_min) * rows).long().tolist()) == pytest.approx(
        range(rows), abs=1
    )
    masked = 1 - schedule.alpha(t)
    for group in t.argsort().chunk(4):
        difference = noisy.predict_mask_BL[group].sum() - length * masked[group].sum()
        spread = (length * masked[group] * (1 - masked[group])).sum().sqrt()
        assert abs(difference) < 4 * spread
    expected = bound_weight(schedule.alpha(t), schedule.dalpha(t))
    torch.testing.assert_close(noisy.weight_BK[:, 0].double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_training_masks_padding_as_text_unless_it_stays_visible(padding: Any) -> None:
    tokens = some_tokens(200, 12)
    valid = torch.arange(12) < (torch.arange(200) % 13)[:, None]
    plain = Mdlm().corrupt(batch(tokens), draws(200), MODEL)
    noisy = Mdlm(padding=padding).corrupt(batch(tokens, valid), draws(200), MODEL)
    masked = noisy.ids_BL == MODEL.mask
    assert (plain.predict_mask_BL & ~valid).any()
    assert torch.equal(masked, plain.predict_mask_BL & (valid | torch.tensor(padding != "visible")))
    assert torch.equal(noisy.ids_BL[~masked], tokens[~masked])
    assert torch.equal(noisy.target_BL, tokens)
    text = torch.ones_like(valid) if padding == "generated" else valid
    assert torch.equal(noisy.predict_mask_BL, masked & text)
    assert noisy.valid_BL is not None
    assert torch.equal(noisy.valid_BL, text)
    assert noisy.count() == text.sum()
    assert noisy.predict_mask_BL.any(0)[:11].all()


@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_without_padding_it_is_the_same_whatever_becomes_of_it(padding: Any) -> None:
    data = batch(some_tokens(50, 12))
    free = torch.ones_like(data["valid"])
    for method, more in (("corrupt", ()), ("bound_corrupt", (free,))):
        plain = getattr(Mdlm(), method)(data, *more, draws(50), MODEL)
        other = getattr(Mdlm(padding=padding), method)(data, *more, draws(50), MODEL)
        for name in ("ids_BL", "level_BK", "predict_mask_BL", "valid_BL", "weight_BK", "over_BL"):
            assert torch.equal(getattr(plain, name), getattr(other, name)), name


def test_a_mask_token_of_the_text_itself_is_never_a_target() -> None:
    model = ModelConfig(vocab_size=VOCAB, mask_id=3, width=2, num_heads=1)
    tokens = some_tokens(200, 12)
    noisy = Mdlm().corrupt(batch(tokens), draws(200), model)
    assert (tokens == 3).any()
    assert (noisy.target_BL[noisy.predict_mask_BL] != 3).all()
    assert (noisy.ids_BL[noisy.predict_mask_BL] == 3).all()
    assert torch.equal(noisy.ids_BL[~noisy.predict_mask_BL], tokens[~noisy.predict_mask_BL])


@pytest.mark.parametrize("method", ["corrupt", "bound_corrupt"])
def test_noise_depends_on_the_stream_position_alone(method: str) -> None:
    data = batch(some_tokens(16, 9), start=100)
    kept = torch.tensor([11, 2, 5, 15])

    def run(data: dict[str, Tensor], seed: int = 0) -> Noisy:
        free = (torch.ones_like(data["tokens"], dtype=torch.bool),)
        arguments = free if method == "bound_corrupt" else ()
        return getattr(Mdlm(), method)(data, *arguments, draws(16, seed), MODEL)

    whole = run(data)
    part = run({key: value[kept] for key, value in data.items()})
    for name in ("ids_BL", "level_BK", "predict_mask_BL", "weight_BK"):
        assert torch.equal(getattr(whole, name)[kept], getattr(part, name))
    moved = run({**data, "position": data["position"] + 16})
    assert not torch.equal(whole.predict_mask_BL, moved.predict_mask_BL)
    assert not torch.equal(whole.predict_mask_BL, run(data, seed=1).predict_mask_BL)


@pytest.mark.parametrize("method", ["corrupt", "bound_corrupt"])
def test_corruption_leaves_the_batch_as_it_is(method: str) -> None:
    data = batch(some_tokens(8, 6))
    before = {key: value.clone() for key, value in data.items()}
    arguments = (data["valid"],) if method == "bound_corrupt" else ()
    getattr(Mdlm(), method)(data, *arguments, draws(8), MODEL)
    assert all(torch.equal(data[key], before[key]) for key in before)


def constant(logits_V: Tensor) -> Callable[..., Tensor]:
    padded = torch.nn.functional.pad(logits_V, (0, 1), value=-torch.inf)
    return lambda ids, level, where: padded.expand(int(where.sum()), -1)


def training_losses(objective: Mdlm, logits_V: Tensor, tokens: Tensor) -> Tensor:
    """The loss per token of every sample, ``[B]``."""
    noisy = objective.corrupt(batch(tokens), draws(len(tokens)), MODEL)
    return row_losses(constant(logits_V), noisy) / tokens.shape[1]


@pytest.mark.parametrize("t_min", [0.0, 0.3])
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3])
def test_a_uniform_predictor_scores_log_v_times_one_minus_eps(eps: float, t_min: float) -> None:
    objective = Mdlm(schedule=LogLinear(eps=eps), t_min=t_min)
    tokens = some_tokens(2000, 16)
    losses = training_losses(objective, torch.zeros(VOCAB), tokens)
    expected = (1 - eps) * math.log(VOCAB)
    error = float(losses.std()) / len(losses) ** 0.5
    assert abs(losses.mean() - expected) < 4 * error
    assert error < 0.03 * expected

    noisy = objective.corrupt(batch(tokens), draws(len(tokens)), MODEL)
    masked = 1 - objective.schedule.alpha(noisy.level_BK.double())
    in_expectation = (noisy.weight_BK * masked).mean() * math.log(VOCAB)
    assert in_expectation == pytest.approx(expected, rel=1e-5)


def test_a_unigram_predictor_scores_the_cross_entropy() -> None:
    unigram = torch.tensor([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02], dtype=torch.float64)
    tokens = torch.multinomial(
        unigram.flip(0).expand(2000, -1), 16, True, generator=torch.Generator().manual_seed(1)
    )
    cross_entropy = -unigram.log()[tokens].mean()
    losses = training_losses(Mdlm(schedule=LogLinear(eps=0.0), t_min=0.0), unigram.log(), tokens)
    error = float(losses.std()) / len(losses) ** 0.5
    assert abs(losses.mean() - cross_entropy) < 4 * error
    assert error < 0.03 * cross_entropy


def test_a_perfect_predictor_scores_zero() -> None:
    tokens = some_tokens(50, 8)
    noisy = Mdlm().corrupt(batch(tokens), draws(50), MODEL)
    logits = 1e4 * torch.nn.functional.one_hot(tokens[noisy.predict_mask_BL], VOCAB + 1).double()
    losses = Mdlm().bound_losses(Prediction(logits=Categorical(logits)), noisy)
    assert len(losses) == noisy.predict_mask_BL.sum()
    assert (losses == 0).all()


@pytest.mark.parametrize("t_min", [-0.1, 1.0, math.nan])
def test_a_least_time_outside_its_range_is_refused(t_min: float) -> None:
    with pytest.raises(ValueError, match="t_min must lie in"):
        Mdlm(t_min=t_min)


class Given(Mdlm):
    """An objective of these losses."""

    def __init__(self, losses: Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "given", losses)

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        return {"loss": self.given}  # type: ignore[attr-defined]


@pytest.mark.parametrize("per_token", [False, True])
def test_losses_by_level_add_up_to_the_whole(per_token: bool) -> None:
    rows, length = 40, 6
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(rows, length if per_token else 1, generator=generator)
    level[0], level[1] = 0.0, 1.0
    valid = torch.rand(rows, length, generator=generator) < 0.8
    over = valid & (torch.rand(rows, length, generator=generator) < 0.9)
    where = over & (torch.rand(rows, length, generator=generator) < 0.5)
    tokens = some_tokens(rows, length)
    noisy = Noisy(
        ids_BL=tokens,
        level_BK=level,
        predict_mask_BL=where,
        valid_BL=valid,
        position_B=torch.arange(rows),
        target_BL=tokens,
        weight_BK=level,
        over_BL=over,
    )
    losses = torch.rand(int(where.sum()), generator=generator).requires_grad_()
    sums = sum_losses(Given(losses), Prediction(), noisy)
    torch.testing.assert_close(sums.terms["loss"], losses.sum())
    torch.testing.assert_close(sums.level_loss.sum(), losses.sum().detach())
    assert sums.level_count.sum() == noisy.count() == over.sum()
    loss_BL = torch.zeros(rows, length).masked_scatter(where, losses.detach())
    level_BL = level.expand(rows, length)
    for bucket in range(LEVEL_BUCKETS):
        low, high = bucket / LEVEL_BUCKETS, (bucket + 1) / LEVEL_BUCKETS
        inside = (level_BL >= low) & ((level_BL < high) | (bucket == LEVEL_BUCKETS - 1))
        torch.testing.assert_close(sums.level_loss[bucket], loss_BL[inside].sum())
        assert sums.level_count[bucket] == (inside & over).sum()
    assert sums.terms["loss"].requires_grad
    assert not sums.level_loss.requires_grad
    sums.terms["loss"].backward()
    assert (losses.grad == 1).all()


def test_a_mask_token_of_the_text_itself_is_neither_scored_nor_predicted() -> None:
    model = ModelConfig(vocab_size=5, mask_id=2, width=4, num_layers=1, num_heads=1)
    tokens = torch.tensor([[2, 1, 2, 3], [2, 2, 2, 2]]).repeat(50, 1)
    batch = {
        "tokens": tokens,
        "valid": torch.ones_like(tokens, dtype=torch.bool),
        "position": torch.arange(100),
    }
    draws = Draws(seed=0, split="valid", batch=100)
    free = torch.ones_like(tokens, dtype=torch.bool)
    for noisy in (
        Mdlm().bound_corrupt(batch, free, draws, model),
        Mdlm().corrupt(batch, draws, model),
    ):
        assert noisy.predict_mask_BL.any()
        assert not (noisy.predict_mask_BL & (tokens == 2)).any()
    assert int(Mdlm().bound_corrupt(batch, free, draws, model).count()) == 100
