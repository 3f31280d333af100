"""SUNDAE: its corruption, its views, its loss held out, and its sampler's chain, exactly."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from model.categorical import Categorical
from model.draws import Draws
from model.networks.build import build
from model.networks.config import ModelConfig
from model.objectives import LOSS, Bounded, Noisy, sum_losses
from model.objectives.sundae import Sundae
from model.prediction import Answer, Prediction, Read
from model.processes.uniform import random_ids
from model.query import Query
from model.samplers import Job
from model.samplers.unrolled import Unrolled
from pretrain.evaluation.bound import mean_losses
from tools.verify.joint import Joint
from tools.verify.synthetic import run_config

VOCAB, LENGTH = 7, 9
MODEL = ModelConfig(vocab_size=VOCAB, width=2, num_heads=1)
DRAWS = Draws(seed=0, split="test", batch=8)
Denoise = Callable[[Query], Tensor]


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


class Told:
    """A network that has these logits."""

    def __init__(self, logits: Denoise = leaning) -> None:
        self.logits = logits

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        return read(Prediction(logits=Categorical(self.logits(query))))

    def encode(self, query: Query) -> Query:
        return query


def views(objective: Sundae, rows: list[int], denoise: Denoise = leaning) -> Noisy:
    noisy = objective.corrupt(batch(rows), DRAWS, MODEL)
    return objective.refine(noisy, Told(denoise).ask, DRAWS)


def losses(objective: Sundae, noisy: Noisy) -> Tensor:
    prediction = Prediction(logits=Categorical(leaning(noisy)))
    return objective.losses(prediction, noisy)[LOSS]


# -- corruption -----------------------------------------------------------------------------


def test_a_rate_a_sample_and_neither_padding_nor_mask_is_touched() -> None:
    model = ModelConfig(vocab_size=VOCAB, mask_id=3, width=2, num_heads=1)
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
    assert plain.refine(noisy, Told().ask, DRAWS) is noisy
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
        noisy = Sundae(unrolls=3, temperature=temperature).refine(start, Told().ask, DRAWS)
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
        return Told().ask(query, read)

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
    settings: dict[str, Any] = {"seed": 3, "num": num}
    draws = Draws(seed=3, split="valid", batch=num)
    known, tokens = [], []
    for row in range(num):
        noisy = objective.corrupt(batch([row]), draws, MODEL)
        noisy = objective.refine(noisy, Told().ask, draws)
        known.append(losses(objective, noisy).double().sum())
        tokens.append(float(batch([row])["valid"].sum()))
    known_N, tokens_N = torch.stack(known), torch.tensor(tokens, dtype=torch.float64)
    for size in (1, 3, 7):
        found = mean_losses(Told().ask, objective, MODEL, Texts(), batch=size, **settings)
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


# -- sampler --------------------------------------------------------------------------------


def job_of(denoise: Denoise, rows: int, length: int, vocab: int) -> Job:
    return Job(
        ids_BL=torch.zeros(rows, length, dtype=torch.int64),
        free_BL=torch.ones(rows, length, dtype=torch.bool),
        position_B=torch.arange(rows),
        draws=Draws(seed=0, split="sample", batch=rows),
        objective=Sundae(),
        model=ModelConfig(vocab_size=vocab, width=2, num_heads=1),
        network=Told(denoise),
    )


def given_the_others(joint: Joint) -> Denoise:
    """p(x_i | all others), whatever stands at i."""

    def denoise(query: Query) -> Tensor:
        row_M, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
        ids_ML = query.ids_BL[row_M].clone()
        here_ML = torch.arange(joint.length) == column_M[:, None]
        ids_ML[here_ML] = joint.mask
        return joint.denoise(ids_ML, torch.zeros(len(ids_ML), 1), here_ML)

    return denoise


def one_at_a_time(joint: Joint) -> Tensor:
    """The chain that draws one position, chosen evenly, of its conditional: ``[N, N]``."""
    x_NL, chain_NN = joint.outcomes, torch.zeros(2 * (len(joint.outcomes),), dtype=torch.float64)
    for place in range(joint.length):
        others = [i for i in range(joint.length) if i != place]
        same_NN = (x_NL[:, None][..., others] == x_NL[None][..., others]).all(dim=-1)
        weight_NN = same_NN * joint.probability
        chain_NN += weight_NN / weight_NN.sum(dim=1, keepdim=True) / joint.length
    return chain_NN


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_samples_follow_the_chain_from_even_ids(
    three_tokens: Any, chi_square: Callable[[Tensor, Tensor], float], steps: int
) -> None:
    """One of three positions a step, and no early end: its law after any step, at last P(x)."""
    job = job_of(given_the_others(three_tokens), 4000, 3, 3)
    sampler = Unrolled(steps=steps, temperature=1.0, min_steps=steps)
    drawn = sampler.run(job)
    assert job.evaluations == steps
    law = torch.full((27,), 1 / 27, dtype=torch.float64)
    law = law @ torch.linalg.matrix_power(one_at_a_time(three_tokens), steps)
    code = (drawn * torch.tensor([9, 3, 1])).sum(dim=1)
    assert chi_square(torch.bincount(code, minlength=27), law) < 4.5
    if steps == 40:
        torch.testing.assert_close(law, three_tokens.probability, rtol=1e-3, atol=0)


def counting(query: Query) -> Tensor:
    """Surely one more than what stands there, up to the last id."""
    ids_M = (query.ids_BL[query.predict_mask_BL] + 1).clamp(max=VOCAB - 1)
    return torch.nn.functional.one_hot(ids_M, VOCAB + 1).float().log()


def test_a_text_is_finished_by_a_step_that_changes_none_of_its_ids() -> None:
    """Each by itself: in all of its ids it is VOCAB - 1 less its smallest id steps away."""
    seen: list[Tensor] = []
    job = job_of(counting, 6, 2, VOCAB)
    job.on_step = seen.append
    drawn = Unrolled(proportion=1.0, min_steps=1).run(job)
    assert bool((drawn == VOCAB - 1).all())
    start = random_ids(job.draws.uniform("start", job.position_B, 2), job.model)
    away_B = VOCAB - 1 - start.amin(dim=1)
    assert job.evaluations == len(seen) == int(away_B.max()) + 1
    for number, ids in enumerate(seen):
        assert torch.equal(ids, (start + number + 1).clamp(max=VOCAB - 1))
    short = Unrolled(proportion=1.0, min_steps=1, steps=2)
    assert torch.equal(short.run(job_of(counting, 6, 2, VOCAB)), seen[1])
    longest = Unrolled(proportion=1.0, min_steps=9)
    job = job_of(counting, 6, 2, VOCAB)
    assert torch.equal(longest.run(job), drawn)
    assert job.evaluations == 9


@pytest.mark.parametrize("proportion", [0.01, 0.3, 0.5, 1.0])
def test_a_share_of_the_free_positions_is_revised_in_a_step(proportion: float) -> None:
    seen: list[Tensor] = []
    job = job_of(counting, 200, 10, VOCAB)
    job.free_BL = torch.arange(10) < 1 + torch.arange(200)[:, None] % 10
    job.on_step = seen.append
    Unrolled(proportion=proportion, steps=1).run(job)
    start = random_ids(job.draws.uniform("start", job.position_B, 10), job.model)
    start = torch.where(job.free_BL, start, 0)
    free_B = job.free_BL.sum(dim=1)
    most_B = (free_B.double() * proportion).round().clamp(min=1)
    revised = seen[0] != start
    assert bool((revised.sum(dim=1) <= most_B).all())
    steady_B = ((start == VOCAB - 1) & job.free_BL).any(dim=1)
    assert torch.equal(revised.sum(dim=1)[~steady_B].double(), most_B[~steady_B])
    assert not bool(revised[~job.free_BL].any())


def test_the_unsure_positions_are_revised_after_a_first_step_of_all() -> None:
    """At temperature 0 argmax-unrolled decoding: sure of a place in the order of its number."""
    where: list[list[bool]] = []
    before: list[Tensor] = []

    def surer(query: Query) -> Tensor:
        _, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
        ids_M = (query.ids_BL[query.predict_mask_BL] + 1) % VOCAB
        sure_M1 = 1.0 + column_M[:, None]
        one_hot_MR = torch.nn.functional.one_hot(ids_M, VOCAB + 1)
        return sure_M1 * one_hot_MR

    job = job_of(surer, 1, 10, VOCAB)
    start = random_ids(job.draws.uniform("start", job.position_B, 10), job.model)
    before.append(start)

    def watch(ids_BL: Tensor) -> None:
        where.append((ids_BL != before[-1])[0].tolist())
        before.append(ids_BL)

    job.on_step = watch
    Unrolled(order="unsure", temperature=0.0, proportion=0.3, steps=3).run(job)
    assert where == [[True] * 10, *([[place < 3 for place in range(10)]] * 2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"temperature": -0.1}, "temperature must not"),
        ({"proportion": 0.0}, r"proportion must lie in \(0, 1\]"),
        ({"proportion": 1.1}, r"proportion must lie in \(0, 1\]"),
        ({"min_steps": 0}, "min_steps must be at least 1"),
    ],
)
def test_settings_of_the_sampler_out_of_range_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Unrolled(**settings)
