"""Held-out losses of objectives without a bound: several terms, views, samples of [B, 1]."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.categorical import Categorical
from model.draws import Draws
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, Batch, Noisy, Objective, State, stacked, sum_losses
from model.prediction import Answer, Ask, Prediction, Read
from model.query import Query
from pretrain.evaluation.evaluator import Evaluator, Share
from pretrain.evaluation.losses import mean_losses

MODEL = DiT(vocab_size=5, width=8, num_heads=2, num_layers=1)
LENGTHS = (1, 4, 2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class TwoTerms(Objective):
    """Cross-entropy of even columns of the text, a square of the level, two views of each."""

    def corrupt(
        self, batch: Batch, draws: Draws, model: ModelConfig, state: State = NO_STATE
    ) -> Noisy:
        valid = batch["valid"]
        even = valid & (torch.arange(valid.shape[1]) % 2 == 0)
        return Noisy(
            ids_BL=batch["tokens"],
            level_BK=batch["position"][:, None] / 10,
            predict_mask_BL=even,
            valid_BL=valid,
            position_B=batch["position"],
            target_BL=batch["tokens"],
            weight_BK=torch.ones(len(valid), 1),
            over_BL=valid,
            counts={"even": 2 * even.sum(), "level": torch.tensor(2 * len(valid))},
        )

    @property
    def terms(self) -> Mapping[str, float]:
        return {"even": 0.5, "level": 3.0}

    @property
    def refines(self) -> bool:
        return True

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        other = replace(noisy, ids_BL=(noisy.ids_BL + 1) % 5)
        return stacked([noisy, other])

    def losses(self, prediction: Prediction, noisy: Noisy) -> Mapping[str, Tensor]:
        assert prediction.logits is not None
        ids_M = noisy.target_BL[noisy.predict_mask_BL]
        return {
            "even": -prediction.logits.log_prob(ids_M),
            "level": noisy.level_BK.double().square(),
        }


class Samples:
    """Texts of uneven lengths; a text of one token has one even column, as it has one row."""

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        position_B = torch.from_numpy(positions)
        valid = torch.arange(4) < torch.tensor(LENGTHS)[position_B][:, None]
        tokens = (position_B[:, None] + torch.arange(4)) % 5
        return {"tokens": tokens, "valid": valid, "position": position_B}


def answer(query: Query, read: Read[Answer]) -> Answer:
    """A network that gives each id its own logits."""
    table = torch.linspace(-1, 2, 25).view(5, 5).sin()
    return read(Prediction(logits=Categorical(table[query.ids_BL[query.predict_mask_BL]])))


def by_hand() -> tuple[dict[str, float], list[float]]:
    table = torch.linspace(-1, 2, 25).view(5, 5).sin().log_softmax(dim=1).double()
    even = [0.0] * 5
    for sample, length in enumerate(LENGTHS):
        for column in range(0, length, 2):
            token = (sample + column) % 5
            even[sample] -= float(table[token, token] + table[(token + 1) % 5, token])
    num_even = 2 * sum((length + 1) // 2 for length in LENGTHS)
    level = [2 * (sample / 10) ** 2 for sample in range(5)]
    terms = {"even": sum(even) / num_even, "level": sum(level) / 10}
    tokens = sum(LENGTHS)
    parts = [tokens * (0.5 * a / num_even + 3.0 * b / 10) for a, b in zip(even, level, strict=True)]
    return {"loss": 0.5 * terms["even"] + 3.0 * terms["level"], **terms}, parts


def evaluator(batch: int, share: Share) -> Evaluator:
    return Evaluator(
        ask=answer, objective=TwoTerms(), model=MODEL, seed=0, batch=batch, share=share
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 2])
def test_each_term_is_divided_by_its_own_count(batch: int, size: int) -> None:
    shares = [
        mean_losses(evaluator(batch, Share(rank=rank, size=size)), Samples(), num=5)
        for rank in range(size)
    ]
    names = iter(vars(shares[0]))
    summed = {name: sum(getattr(share, name) for share in shares) for name in names}
    found = shares[0].total(lambda value: value)
    found = replace(found, **summed)
    losses, parts = by_hand()
    assert found.losses(TwoTerms()) == pytest.approx(losses, rel=1e-6)
    by_sample = found.by_sample(TwoTerms())
    assert by_sample[:, 0].tolist() == pytest.approx(parts, rel=1e-6)
    assert by_sample[:, 1].tolist() == list(LENGTHS)
    ratio = by_sample[:, 0].sum() / by_sample[:, 1].sum()
    assert float(ratio) == pytest.approx(losses["loss"], rel=1e-6)


def test_views_are_stacked_row_by_row() -> None:
    samples: Any = Samples().batch(np.arange(5))
    objective = TwoTerms()
    noisy = objective.corrupt(samples, Draws(seed=0, split="train", batch=5), MODEL)
    both = objective.refine(noisy, answer, Draws(seed=0, split="train", batch=5))
    assert torch.equal(both.ids_BL[:5], noisy.ids_BL)
    assert torch.equal(both.ids_BL[5:], (noisy.ids_BL + 1) % 5)
    assert both.position_B.tolist() == [0, 1, 2, 3, 4] * 2
    assert both.tokens is not None
    assert int(both.tokens) == sum(LENGTHS)
    assert both.counts is noisy.counts


def test_levels_leave_out_losses_of_whole_samples() -> None:
    """Where as many positions as samples have a loss, one shape could be taken for the other."""
    samples: Any = Samples().batch(np.array([0]))
    objective = TwoTerms()
    draws = Draws(seed=0, split="train", batch=1)
    noisy = objective.corrupt(samples, draws, MODEL)
    sums = answer(noisy, lambda found: sum_losses(objective, found, noisy).level_loss)
    assert float(sums.sum()) == pytest.approx(0.5 * float(-table_of(0)), rel=1e-6)


def table_of(token: int) -> Tensor:
    return torch.linspace(-1, 2, 25).view(5, 5).sin().log_softmax(dim=1)[token, token]
