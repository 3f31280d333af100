"""SUNDAE: its corruption, its views, and its held-out loss."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from asking import Denoise, Known
from torch import Tensor

from configs.errors import UserError
from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.networks.build import build
from model.networks.config import ModelConfig
from model.objectives import LOSS, Bounded, Noisy, sum_losses
from model.objectives.sundae import Sundae
from model.prediction import Prediction
from model.processes.uniform import random_ids
from model.query import Query
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.losses import mean_losses
from pretrain.trial import run_config

VOCAB = 7

LENGTH = 9

MODEL = DiT(vocab_size=VOCAB, width=2, num_heads=1)

DRAWS = Draws(seed=0, split="test", batch=8)


def batch(rows: list[int], model: ModelConfig = MODEL) -> dict[str, Tensor]:
    """Texts of different lengths, some positions of which are padding."""
    position_B = torch.tensor(rows)
    length_B1 = 2 + position_B[:, None] % (LENGTH - 1)
    return {
        "tokens": random_ids(DRAWS.uniform("text", position_B, LENGTH), model),
        "valid": torch.arange(LENGTH) < length_B1,
        "position": position_B,
    }


def leaning(query: Query) -> Tensor:
    """A network of its own mind: logits that depend on all that it sees, in no sensible way."""
    ids_BL = query.ids_BL
    code_B = (ids_BL * 5 ** torch.arange(ids_BL.shape[1])).sum(dim=1)
    place_LV = torch.arange(ids_BL.shape[1] * VOCAB).view(-1, VOCAB)
    logits_BLV = 2 * torch.sin(code_B[:, None, None] + 1.7 * place_LV)
    return torch.nn.functional.pad(logits_BLV[query.predict_mask_BL], (0, 1), value=-torch.inf)


def views(objective: Sundae, rows: list[int], denoise: Denoise = leaning) -> Noisy:
    noisy = objective.corrupt(batch(rows), DRAWS, MODEL)
    return objective.refine(noisy, Known(denoise).ask, DRAWS)


def losses(objective: Sundae, noisy: Noisy) -> Tensor:
    prediction = Prediction(logits=Categorical(leaning(noisy)))
    return objective.losses(prediction, noisy)[LOSS]


# -- corruption -----------------------------------------------------------------------------
def test_a_rate_a_sample_and_neither_padding_nor_mask_is_touched() -> None:
    model = DiT(vocab_size=VOCAB, mask_id=3, width=2, num_heads=1)
    given = batch(list(range(400)), model)
    given["tokens"][:, 1] = model.mask
    noisy = Sundae().corrupt(given, Draws(seed=1, split="test", batch=400), model)
    text = given["valid"] & (given["tokens"] != model.mask)
    assert torch.equal(noisy.predict_mask_BL, text)
    assert torch.equal(noisy.over_BL, text)
    assert torch.equal(noisy.ids_BL[~text], given["tokens"][~text])
    assert bool((noisy.ids_BL[text] != model.mask).all())
    level_B = noisy.level_BK[:, 0].sort().values * 400
    assert torch.equal(level_B.floor(), torch.arange(400.0))
    changed_B = ((noisy.ids_BL != given["tokens"]) & text).sum(dim=1)
    expected_B = noisy.level_BK[:, 0] * text.sum(dim=1) * (1 - 1 / 6)
    assert abs(float((changed_B - expected_B).sum())) < 4 * float(expected_B.sum()) ** 0.5


# -- views ----------------------------------------------------------------------------------
def test_one_unroll_is_a_plain_denoising_autoencoder() -> None:
    plain, noisy = Sundae(unrolls=1), Sundae(unrolls=1).corrupt(batch([0, 1]), DRAWS, MODEL)
    assert not plain.refines
    assert plain.refine(noisy, Known(leaning).ask, DRAWS) is noisy
    cross_entropy = torch.nn.functional.cross_entropy(
        leaning(noisy)[:, :VOCAB], noisy.target_BL[noisy.predict_mask_BL], reduction="none"
    )
    torch.testing.assert_close(losses(plain, noisy), cross_entropy)
    first = views(Sundae(unrolls=2), [0, 1])
    assert torch.equal(losses(Sundae(unrolls=2), first)[: len(cross_entropy)], losses(plain, noisy))


def test_views_stand_behind_one_another_and_the_text_is_counted_once() -> None:
    rows, plain = [3, 4, 6], Sundae(unrolls=1)
    corrupted = plain.corrupt(batch(rows), DRAWS, MODEL)
    noisy, text = views(Sundae(unrolls=3), rows), int(corrupted.predict_mask_BL.sum())
    assert Sundae(unrolls=3).expansion == 3
    assert torch.equal(noisy.ids_BL[:3], corrupted.ids_BL)
    assert noisy.tokens is not None
    assert int(noisy.tokens) == text
    assert int(noisy.count()) == 3 * text
    for name in ("target_BL", "predict_mask_BL", "valid_BL", "level_BK", "position_B"):
        one = getattr(corrupted, name)
        assert torch.equal(getattr(noisy, name), torch.cat([one] * 3)), name
    assert torch.equal(
        noisy.ids_BL[~noisy.predict_mask_BL], noisy.target_BL[~noisy.predict_mask_BL]
    )


def test_a_view_is_drawn_of_what_is_predicted_of_the_one_before(
    chi_square: Callable[[Tensor, Tensor], float],
) -> None:
    num = 4000
    tokens = torch.tensor([[1, 2, 3]]).expand(num, -1)
    given = {"tokens": tokens, "valid": tokens > 0, "position": torch.arange(num)}
    start = replace(Sundae().corrupt(given, DRAWS, MODEL), ids_BL=tokens)
    for temperature in (1.0, 0.5):
        noisy = Sundae(unrolls=3, temperature=temperature).refine(start, Known(leaning).ask, DRAWS)
        once = replace(start, ids_BL=tokens[:1], predict_mask_BL=start.predict_mask_BL[:1])
        p_LV = (leaning(once) / temperature).double().softmax(dim=-1)
        for place in range(3):
            counts = torch.bincount(noisy.ids_BL[num : 2 * num, place], minlength=VOCAB + 1)
            assert chi_square(counts, p_LV[place]) < 4.5
        # The third view goes on from the second, which differs from row to row.
        second = noisy.ids_BL[num : 2 * num]
        same = (second == second[0]).all(dim=1)
        after = replace(start, ids_BL=second[:1], predict_mask_BL=start.predict_mask_BL[:1])
        p_V = (leaning(after) / temperature).double().softmax(dim=-1)[0]
        counts = torch.bincount(noisy.ids_BL[2 * num :, 0][same], minlength=VOCAB + 1)
        assert int(same.sum()) > 20
        assert chi_square(counts, p_V) < 4.5
        assert not torch.equal(second, noisy.ids_BL[2 * num :])


def test_only_the_number_of_a_sample_decides_its_views() -> None:
    whole = views(Sundae(unrolls=3), [0, 1, 2, 3]).ids_BL.view(3, 4, LENGTH)
    part = views(Sundae(unrolls=3), [3, 1]).ids_BL.view(3, 2, LENGTH)
    assert torch.equal(part, whole[:, [3, 1]])


def test_nothing_to_predict_asks_all_the_same() -> None:
    given = batch([0, 1])
    given["valid"] = torch.zeros_like(given["valid"])
    noisy = Sundae(unrolls=3).corrupt(given, DRAWS, MODEL)
    asked: list[Query] = []

    def ask(query: Query, read: Any) -> Any:
        asked.append(query)
        return Known(leaning).ask(query, read)

    assert len(Sundae(unrolls=3).refine(noisy, ask, DRAWS).ids_BL) == 6
    assert len(asked) == 2


def test_the_loss_is_the_mean_over_the_views_and_so_is_its_gradient() -> None:
    config = run_config("sundae", objective={"unrolls": 3})
    network = build(config.model, seed=0)
    texts = batch([0, 1, 2], config.model)
    corrupted = config.objective.corrupt(texts, DRAWS, config.model)
    noisy = config.objective.refine(corrupted, network.ask, DRAWS)

    def slope(of: Noisy) -> tuple[Tensor, list[Tensor]]:
        sums = sum_losses(config.objective, network.prediction(network(of)), of)
        loss = sums.terms[LOSS] / of.count()
        wanted = [p for p in network.parameters() if p.requires_grad]
        return loss, list(torch.autograd.grad(loss, wanted))

    loss, gradients = slope(noisy)
    apart = [
        slope(replace(corrupted, ids_BL=noisy.ids_BL[3 * view : 3 * view + 3])) for view in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack([one for one, _ in apart]).mean())
    for whole, *parts in zip(gradients, *(those for _, those in apart), strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-7)


# -- held out -------------------------------------------------------------------------------
class Texts:
    """Held-out samples, by position."""

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        return batch(positions.tolist())


@pytest.mark.parametrize("unrolls", [1, 2, 3])
def test_held_out_sums_of_a_sample_are_over_all_its_views(unrolls: int) -> None:
    objective, num = Sundae(unrolls=unrolls), 7
    draws = Draws(seed=3, split="valid", batch=num)
    known, tokens = [], []
    for row in range(num):
        noisy = objective.corrupt(batch([row]), draws, MODEL)
        noisy = objective.refine(noisy, Known(leaning).ask, draws)
        known.append(losses(objective, noisy).double().sum())
        tokens.append(float(batch([row])["valid"].sum()))
    known_N, tokens_N = torch.stack(known), torch.tensor(tokens, dtype=torch.float64)
    for size in (1, 3, 7):
        ask = Known(leaning).ask
        evaluator = Evaluator(ask=ask, objective=objective, model=MODEL, seed=3, batch=size)
        found = mean_losses(evaluator, Texts(), num=num)
        torch.testing.assert_close(found.samples_NT[:, 0], known_N)
        assert torch.equal(found.tokens_N, tokens_N)
        assert float(found.counts_T[0]) == unrolls * float(tokens_N.sum())
        loss = float(known_N.sum() / (unrolls * tokens_N.sum()))
        assert found.losses(objective) == {LOSS: pytest.approx(loss)}
        by_sample = found.by_sample(objective)
        torch.testing.assert_close(by_sample[:, 0], known_N / unrolls)
        assert float(by_sample[:, 0].sum() / by_sample[:, 1].sum()) == pytest.approx(loss)


def test_it_claims_no_bound_and_wants_a_network_that_is_told_no_level() -> None:
    assert not isinstance(Sundae(), Bounded)
    with pytest.raises(UserError, match="not told the level: leave model"):
        run_config("sundae", model={"time_conditioning": True})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"unrolls": 0}, "unrolls must be at least 1"), ({"temperature": -1}, "temperature must not")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sundae(**settings)
