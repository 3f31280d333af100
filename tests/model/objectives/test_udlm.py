"""UDLM: what its corruption leaves alone, and what its bound is of right and wrong networks.

That the bound of the right prediction is -log p(x) for every x is an oracle of tools.verify.
"""

import itertools

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.objectives import Bounded, Noisy
from model.objectives.udlm import Udlm
from model.prediction import Prediction
from model.schedules.cosine import Cosine
from model.verification.joint import Joint
from model.verification.oracles.udlm import others

MODEL = DiT(vocab_size=9, mask_id=4, width=2, num_heads=1)
ROWS, LENGTH = 64, 50


def draws(batch: int = ROWS, seed: int = 0) -> Draws:
    return Draws(seed=seed, split="test", batch=batch)


def batch_of(tokens: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    return {
        "tokens": tokens,
        "valid": torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid,
        "position": torch.arange(len(tokens)),
    }


@pytest.fixture(scope="module")
def text() -> dict[str, Tensor]:
    """Texts of several lengths, in which [MASK] occurs too."""
    tokens = torch.randint(9, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    return batch_of(tokens, torch.arange(LENGTH) < 10 + torch.arange(ROWS)[:, None])


def test_every_token_of_the_text_is_in_the_loss_and_nothing_else_is_noised(
    text: dict[str, Tensor],
) -> None:
    for objective in (Udlm(), Udlm(schedule=Cosine(), t_min=0.2)):
        noisy = objective.corrupt(text, draws(), MODEL)
        wanted = text["valid"] & (text["tokens"] != MODEL.mask)
        assert torch.equal(noisy.predict_mask_BL, wanted)
        assert torch.equal(noisy.ids_BL[~wanted], text["tokens"][~wanted])
        assert not bool((noisy.ids_BL[wanted] == MODEL.mask).any())
        assert int(noisy.count()) == int(text["valid"].sum())
        assert bool((noisy.level_BK > objective.t_min).all())
        share = (noisy.level_BK - objective.t_min) / (1 - objective.t_min)
        assert (share * ROWS).long().flatten().sort().values.tolist() == list(range(ROWS))
        alpha = objective.schedule.alpha(noisy.level_BK.double())
        weight = -objective.schedule.dalpha(noisy.level_BK.double())
        torch.testing.assert_close(noisy.weight_BK, weight.float())
        kept = (noisy.ids_BL == text["tokens"]) & wanted
        expected = ((alpha + (1 - alpha) / 8) * wanted).sum()
        spread = (expected * (1 - expected / wanted.sum())).sqrt()
        assert abs(kept.sum() - expected) < 4 * spread


def test_what_is_given_is_neither_noised_nor_counted(text: dict[str, Tensor]) -> None:
    objective = Udlm()
    assert isinstance(objective, Bounded)
    free = text["valid"] & (torch.arange(LENGTH) % 3 > 0)
    padded = text | {"ending": torch.arange(LENGTH) >= 9 + torch.arange(ROWS)[:, None]}
    for batch, counted in (
        (text, free & (text["tokens"] != MODEL.mask)),
        (padded, free & (text["tokens"] != MODEL.mask) & ~padded["ending"]),
    ):
        noisy = objective.bound_corrupt(batch | {"free": free}, draws(), MODEL)
        assert torch.equal(noisy.predict_mask_BL, counted)
        assert torch.equal(noisy.over_BL, counted)
        assert torch.equal(noisy.ids_BL[~counted], text["tokens"][~counted])
    assert objective.scope(padded=True).length_given
    assert not objective.scope(padded=True).end_masked
    assert not objective.scope(padded=False).length_given


def test_only_the_position_in_the_stream_decides_the_noise(text: dict[str, Tensor]) -> None:
    whole = Udlm().corrupt(text, draws(), MODEL)
    kept = torch.tensor([17, 3, 60])
    part = Udlm().corrupt({key: value[kept] for key, value in text.items()}, draws(), MODEL)
    for name in ("ids_BL", "level_BK", "weight_BK", "predict_mask_BL"):
        assert torch.equal(getattr(whole, name)[kept], getattr(part, name))


def right(joint: Joint, noisy: Noisy) -> Tensor:
    """p(x_0 | the others of x_t), ``[M, V]``."""
    alpha_B1 = 1 - noisy.level_BK.double()
    return others(joint, noisy.ids_BL, noisy.predict_mask_BL, alpha_B1)[noisy.predict_mask_BL]


def mean_of(joint: Joint, noisy: Noisy) -> Tensor:
    """p(x_0 | all of x_t): the same with the noisy token itself taken into account."""
    alpha_M1 = (1 - noisy.level_BK.double()).expand(noisy.ids_BL.shape)[noisy.predict_mask_BL][
        :, None
    ]
    seen_MV = torch.nn.functional.one_hot(noisy.ids_BL[noisy.predict_mask_BL], joint.vocab)
    weight_MV = right(joint, noisy) * (alpha_M1 * seen_MV + (1 - alpha_M1) / joint.vocab)
    return weight_MV / weight_MV.sum(dim=1, keepdim=True)


def estimates(joint: Joint, predict, rows: int = 4000) -> tuple[Tensor, Tensor]:
    """Of every outcome, the held-out bound by so many draws, and its standard error."""
    found, objective = [], Udlm()
    for ids_L in joint.outcomes:
        batch = batch_of(ids_L.repeat(rows, 1))
        noisy = objective.bound_corrupt(batch | {"free": batch["valid"]}, draws(rows), joint.config)
        logits_MR = torch.nn.functional.pad(predict(joint, noisy).log(), (0, 1), value=-torch.inf)
        losses = objective.bound_losses(Prediction(logits=Categorical(logits_MR)), noisy)
        found.append(losses.double().view(rows, joint.length).sum(dim=1))
    values_NR = torch.stack(found)
    return values_NR.mean(dim=1), values_NR.std(dim=1) / rows**0.5


def test_drawn_estimates_of_the_bound_agree_with_the_likelihood() -> None:
    joint = Joint.random(3, 2)
    found, error = estimates(joint, right)
    assert bool(((found + joint.log_prob).abs() < 4 * error).all())


def test_the_posterior_mean_is_not_what_the_bound_asks_for() -> None:
    joint = Joint.random(3, 2)
    found, error = estimates(joint, mean_of)
    mean = (joint.probability * found).sum()
    entropy = -(joint.probability * joint.log_prob).sum()
    spread = (joint.probability * error).square().sum().sqrt()
    assert mean - entropy > 10 * spread


def test_no_prediction_is_better_than_the_right_one_at_any_level() -> None:
    """At each level and noisy text the expected loss of a token is least there."""
    joint = Joint.random(3, 2)
    levels = torch.tensor([0.05, 0.5, 0.95])
    for level, place in itertools.product(levels, range(2)):
        alpha = 1 - level.double()
        where = torch.arange(2) == place
        noisy_ZL = joint.outcomes
        like_ZN = torch.where(
            noisy_ZL[:, None] == joint.outcomes, alpha + (1 - alpha) / 3, (1 - alpha) / 3
        ).prod(dim=-1)
        chance_ZN = like_ZN * joint.probability
        everywhere = torch.ones_like(noisy_ZL, dtype=torch.bool)
        p_ZV = others(joint, noisy_ZL, everywhere, alpha.expand(len(noisy_ZL), 1))[:, place]
        logits_ZV = p_ZV.log().requires_grad_()
        noisy = Noisy(
            ids_BL=noisy_ZL.repeat_interleave(9, dim=0),
            level_BK=level.expand(81, 1),
            predict_mask_BL=where.expand(81, 2),
            position_B=torch.arange(81),
            target_BL=joint.outcomes.repeat(9, 1),
            weight_BK=torch.ones(81, 1),
            over_BL=where.expand(81, 2),
        )
        prediction = Prediction(logits=Categorical(logits_ZV.repeat_interleave(9, dim=0)))
        losses = Udlm().bound_losses(prediction, noisy).view(9, 9)
        (losses * chance_ZN).sum().backward()
        assert logits_ZV.grad is not None
        assert float(logits_ZV.grad.abs().max()) < 1e-6


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"t_min must lie in \[0, 1\)"):
        Udlm(t_min=1.0)
