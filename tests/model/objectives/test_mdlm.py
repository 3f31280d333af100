"""MDLM in training: what is masked, and the losses of known predictors."""

import math
from typing import Any

import pytest
import torch
from masking import MODEL, VOCAB, batch, constant, draws, row_losses, some_tokens
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.objectives import Noisy
from model.objectives.mdlm import Mdlm
from model.prediction import Prediction
from model.processes.absorbing import bound_weight
from model.schedules.cosine import Cosine
from model.schedules.loglinear import LogLinear


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
    data["free"] = torch.ones_like(data["valid"])
    for method in ("corrupt", "bound_corrupt"):
        plain = getattr(Mdlm(), method)(data, draws(50), MODEL)
        other = getattr(Mdlm(padding=padding), method)(data, draws(50), MODEL)
        for name in ("ids_BL", "level_BK", "predict_mask_BL", "valid_BL", "weight_BK", "over_BL"):
            assert torch.equal(getattr(plain, name), getattr(other, name)), name


def test_a_mask_token_of_the_text_itself_is_never_a_target() -> None:
    model = DiT(vocab_size=VOCAB, mask_id=3, width=2, num_heads=1)
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
        data = data | {"free": torch.ones_like(data["valid"])}
        return getattr(Mdlm(), method)(data, draws(16, seed), MODEL)

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
    data["free"] = data["valid"].clone()
    before = {key: value.clone() for key, value in data.items()}
    getattr(Mdlm(), method)(data, draws(8), MODEL)
    assert all(torch.equal(data[key], before[key]) for key in before)


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


def test_settings_of_the_times_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        Mdlm(num_steps=0)
    for settings in ({"num_steps": 4}, {"t_min": 0.0}):
        with pytest.raises(ValueError, match="times must be uniform"):
            Mdlm(times="importance", **settings)


def test_with_steps_the_times_are_those_of_the_steps_each_equally_often() -> None:
    noisy = Mdlm(num_steps=4).corrupt(batch(some_tokens(64, 6)), draws(64), MODEL)
    times, counts = noisy.level_BK.unique(return_counts=True)
    assert times.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert counts.tolist() == [16] * 4


def test_importance_sampling_weighs_every_masked_token_alike() -> None:
    objective = Mdlm(times="importance", t_min=0.01)
    noisy = objective.corrupt(batch(some_tokens(64, 6)), draws(64), MODEL)
    masked = 1 - objective.schedule.alpha(noisy.level_BK.double())
    known = math.log(100) / 0.99
    torch.testing.assert_close(noisy.weight_BK, torch.full_like(noisy.weight_BK, known))
    # The shares are stratified: one in each of 64 equal intervals of their logarithm.
    bins = (64 * (1 + (masked / 0.999).log() / math.log(100))).floor().flatten()
    assert bins.sort().values.tolist() == list(range(64))


def test_a_mask_token_of_the_text_itself_is_neither_scored_nor_predicted() -> None:
    model = DiT(vocab_size=5, mask_id=2, width=4, num_layers=1, num_heads=1)
    tokens = torch.tensor([[2, 1, 2, 3], [2, 2, 2, 2]]).repeat(50, 1)
    batch = {
        "tokens": tokens,
        "valid": torch.ones_like(tokens, dtype=torch.bool),
        "position": torch.arange(100),
    }
    draws = Draws(seed=0, split="valid", batch=100)
    free = torch.ones_like(tokens, dtype=torch.bool)
    for noisy in (
        Mdlm().bound_corrupt(batch | {"free": free}, draws, model),
        Mdlm().corrupt(batch, draws, model),
    ):
        assert noisy.predict_mask_BL.any()
        assert not (noisy.predict_mask_BL & (tokens == 2)).any()
    assert int(Mdlm().bound_corrupt(batch | {"free": free}, draws, model).count()) == 100
