"""Rounds of corruptions: independent, of the documents' own bound, and as many as it takes."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from letters import BOS, EOS, MASK, MODEL, A, B, Documents, evaluator, leaning, letters
from torch import Tensor

from data_pipeline.windows import held_out
from model.objectives.mdlm import Mdlm
from model.processes.masked_bound import ESTIMATORS, Estimator
from pretrain.evaluation.bound import Tally, document_losses
from pretrain.evaluation.conventions.mdlm import FramedWindows
from pretrain.evaluation.conventions.mdlm import Mdlm as Published
from pretrain.evaluation.rounds import LEAST, Rounds, Target, enough, half_width


def test_the_quantile_is_students() -> None:
    """Two-sided 95% points of Student's t, from its tables."""
    low = ((1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (6, 2.4469))
    high = ((7, 2.3646), (9, 2.2622), (15, 2.1314), (30, 2.0423), (120, 1.9799))
    for free, quantile in (*low, *high):
        values = [0.0] * free + [1.0]
        error = float(np.std(values, ddof=1)) / math.sqrt(free + 1)
        assert half_width(values) / error == pytest.approx(quantile, abs=1e-3)
    assert half_width([2.0] * 8) == 0
    assert math.isnan(half_width([1.0, math.inf, 2.0]))


def tally(nelbo: float) -> Tally:
    one = torch.zeros(1, dtype=torch.float64)
    sums = torch.tensor([[10 * nelbo, 10.0, 10.0]], dtype=torch.float64)
    return Tally(documents_D3=sums, ids_R=one, frame=one, windows_D=one)


def drawn(target: Target, seed: int, first: int = 1) -> tuple[Rounds, list[int]]:
    random, expected = np.random.default_rng(seed), list[int]()
    normal = lambda number: tally(3 + 0.1 * random.standard_normal())  # noqa: E731
    return enough(target, normal, first, expected.append), expected


def test_rounds_are_added_until_the_interval_is_narrow_and_holds_the_mean() -> None:
    held, numbers = 0, []
    for seed in range(400):
        found, expected = drawn(Target(half_width=0.03, most=1000), seed)
        assert found.half_width is not None
        assert found.half_width <= 0.03
        assert expected == sorted(set(expected))
        assert expected[-1] == found.samples
        nats, counted, _ = found.tally.documents_D3.sum(dim=0).tolist()
        assert counted == 10 * found.samples
        held += abs(nats / counted - 3) <= found.half_width
        numbers.append(found.samples)
    # (1.96 * 0.1 / 0.03) ** 2 = 43 rounds, by the true spread; stopping costs some coverage.
    assert np.mean(numbers) == pytest.approx(45, abs=5)
    assert held >= 0.91 * 400


def test_there_is_a_least_and_a_most() -> None:
    assert drawn(Target(half_width=9, most=100), 0)[0].samples == LEAST
    assert drawn(Target(half_width=9, most=100), 0, first=20)[0].samples == 20
    ended, _ = drawn(Target(half_width=1e-9, most=13), 0)
    assert ended.samples == 13
    lost = enough(Target(half_width=0.1, most=100), lambda number: tally(math.inf), 1, print)
    assert lost.samples == LEAST
    assert lost.half_width is not None
    assert math.isnan(lost.half_width)


def uneven_split(num: int = 5) -> Any:
    """Windows of which each has a bound of its own: more and more of B."""
    random = np.random.default_rng(1)
    texts = [random.choice([A, B], 6, p=[1 - k / num, k / num]).tolist() for k in range(num)]
    return Documents(texts)


def enumerated(tokens_L: Tensor, hidden_L: Tensor) -> float:
    """The bound of a text: the mean over all masks, of k of n tokens each 1 / (k C(n, k))."""
    place_N = hidden_L.nonzero()[:, 0]
    pattern_ZN = torch.tensor(list(itertools.product([False, True], repeat=len(place_N))))[1:]
    masked_ZL = torch.zeros(len(pattern_ZN), len(tokens_L), dtype=torch.bool)
    masked_ZL[:, place_N] = pattern_ZN
    query: Any = SimpleNamespace(
        ids_BL=torch.where(masked_ZL, MASK, tokens_L), predict_mask_BL=masked_ZL
    )
    row_M, column_M = masked_ZL.nonzero(as_tuple=True)
    nats_M = -leaning(query)[torch.arange(len(row_M)), tokens_L[column_M]]
    size_Z = pattern_ZN.sum(dim=1)
    share_Z = torch.tensor([1 / (k * math.comb(len(place_N), k)) for k in size_Z.tolist()])
    return float((share_Z.double()[row_M] * nats_M.double()).sum())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_mean_over_rounds_is_the_bound_of_these_very_documents(estimator: Estimator) -> None:
    """Of each document: no window keeps the same stratum of times in all rounds."""
    windows, rounds = held_out(uneven_split(), 9, "pad"), 150
    (arrays,) = windows.read(0, 5)
    tokens_BL = torch.from_numpy(arrays["tokens"])
    expected = [enumerated(row, (row == A) | (row == B)) for row in tokens_BL]
    found = evaluator(leaning, Mdlm(estimator=estimator, padding="visible"), batch=500)
    tallies = [
        document_losses(found, windows, samples=1, number=number) for number in range(rounds)
    ]
    nats_RD = torch.stack([one.documents_D3[:, 0] for one in tallies])
    error_D = nats_RD.std(dim=0) / rounds**0.5
    assert ((nats_RD.mean(dim=0) - torch.tensor(expected)).abs() < 4 * error_D).all()
    assert (error_D < 0.15 * nats_RD.mean(dim=0)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("batch", [1, 7])
def test_no_estimator_depends_on_the_batch(estimator: Estimator, batch: int) -> None:
    windows = held_out(letters([3, 9, 1, 20, 14, 6, 7, 2]), 9, "wrap")
    one, other = (
        document_losses(
            evaluator(leaning, Mdlm(estimator=estimator), batch=size), windows, samples=3, number=2
        )
        for size in (500, batch)
    )
    torch.testing.assert_close(one.documents_D3, other.documents_D3, rtol=1e-6, atol=0)


def test_the_published_convention_scores_all_positions_of_full_windows() -> None:
    documents = Documents([[A, B, A], [B], [A, A, B, B, A], [B]])  # 14 tokens with their EOS
    config: Any = SimpleNamespace(data=SimpleNamespace(sequence_length=6, document_mask=False))
    windows = Published().windows(documents, config)
    assert isinstance(windows, FramedWindows)
    assert (len(windows), windows.dropped) == (3, 2)
    (arrays,) = windows.read(0, 3)
    assert arrays["scored"].all()
    assert (arrays["tokens"][:, 0] == BOS).all()
    assert (arrays["tokens"][:, -1] == EOS).all()

    def even(query: Any) -> Tensor:
        logits = torch.zeros(int(query.predict_mask_BL.sum()), 6)
        logits[:, MODEL.mask] = -torch.inf
        return logits

    found = evaluator(even, Mdlm(), batch=2)
    got = document_losses(found, windows, samples=2)
    assert (int(got.frame), int(got.ids_R.sum())) == (6, 12)
    # What frames a window belongs to the last document in it.
    assert got.documents_D3[:, 1].tolist() == [2 * 6, 2 * 2, 2 * 10, 0]
    assert got.documents_D3[:, 2].tolist() == [2 * 4, 2 * 2, 2 * 6, 0]
