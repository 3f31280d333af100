"""The held-out number is what it says it is, on texts whose likelihood is known exactly."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from letters import EOS, MASK, PAD, A, B, Documents, evaluator, leaning, letters
from torch import Tensor

from data_pipeline.windows import held_out
from model.architectures.dit import DiT
from model.objectives import Bounded
from model.objectives.bd3lm import Bd3lm
from model.objectives.genie import Genie
from model.objectives.mdlm import Mdlm
from model.query import Query
from pretrain.evaluation.bound import Tally, document_losses
from pretrain.evaluation.interval import ratio_interval
from pretrain.evaluation.summary import GIVEN_LENGTH, summarise, unigram_nats
from tools.evaluate.summary import plain

MOST = 30
LENGTHS = [1 + number % MOST for number in range(100 * MOST)]
MEAN = sum(LENGTHS) / len(LENGTHS)
WITH_LENGTH = (MEAN * math.log(2) + math.log(MOST)) / (MEAN + 1)
"""Nats a token of texts of n ~ U{1..30} letters, a or b evenly, the EOS being a token."""

Padding = Literal["masked", "generated", "visible"]


def best(query: Query) -> Tensor:
    """The true conditionals of a framed and padded text of U{1..30} letters."""
    ids_BL = query.ids_BL
    place_L = torch.arange(ids_BL.shape[1])
    letter_BL = (ids_BL == A) | (ids_BL == B)
    least_B = torch.where(letter_BL, place_L, 1).amax(dim=1)
    most_B = torch.where(ids_BL == PAD, place_L - 2, MOST).amin(dim=1)
    ends_BL = ids_BL == EOS
    end_B = ends_BL.long().argmax(dim=1) - 1
    least_B = torch.where(ends_BL.any(dim=1), end_B, least_B)
    most_B = torch.where(ends_BL.any(dim=1), end_B, most_B)
    length_N = torch.arange(1, MOST + 1)
    may_BN = (length_N >= least_B[:, None]) & (length_N <= most_B[:, None])
    share_BN = may_BN / may_BN.sum(dim=1, keepdim=True)
    row_M, column_M = query.predict_mask_BL.nonzero(as_tuple=True)
    share_MN = share_BN[row_M].double()
    text_M = (share_MN * (length_N >= column_M[:, None])).sum(dim=1)
    ends_M = (share_MN * (length_N == column_M[:, None] - 1)).sum(dim=1)
    after_M = (share_MN * (length_N < column_M[:, None] - 1)).sum(dim=1)
    none_M = torch.zeros_like(text_M)
    columns = [none_M, ends_M, after_M, text_M / 2, text_M / 2, none_M]
    return torch.stack(columns, dim=1).log()


def found(
    documents: Any, objective: Mdlm, how: Any, predict: Any = best, *, length: int = MOST + 2
) -> tuple[dict[str, Any], Tally]:
    windows = held_out(documents, length, how)
    tally = document_losses(evaluator(predict, objective, batch=500), windows, samples=4)
    scope = objective.scope(padded=how == "pad")
    return summarise(tally, documents, documents, scope), tally


@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_no_number_is_below_the_entropy_that_it_claims(padding: Padding) -> None:
    documents = letters(LENGTHS)
    summary, tally = found(documents, Mdlm(padding=padding), "pad")
    total = sum(LENGTHS)
    nats = tally.documents_D3[:, 0] / 4
    error = float(nats.std()) * len(LENGTHS) ** 0.5
    if padding == "generated":
        assert (summary["length_given"], summary["eos_counted"]) == (False, len(LENGTHS))
        assert summary["tokens"] == total + len(LENGTHS)
        error /= summary["tokens"]
        assert abs(summary["nelbo"] - WITH_LENGTH) < 4 * error
        assert error < 0.01
    else:
        assert (summary["length_given"], summary["eos_counted"]) == (True, 0)
        assert summary["tokens"] == total
        assert summary["nelbo"] >= math.log(2) - 1e-6
    if padding == "visible":
        assert summary["nelbo"] == pytest.approx(math.log(2), rel=1e-6)
        assert summary["bits_per_byte"] == pytest.approx(1, rel=1e-6)
        assert summary["unigram"] == pytest.approx(math.log(2), rel=1e-3)
        assert summary["ratio"] == pytest.approx(1, rel=1e-3)
    assert summary["padding_counted"] == 0
    assert summary["documents_cut"] == 0
    assert "windows" not in summary["bound_on"]


def test_the_unigram_knows_as_much_as_the_bound() -> None:
    counts = np.array([0, 10, 0, 45, 45])
    letters_alone, all_tokens = np.array([0, 0, 0, 7, 7]), np.array([0, 2, 0, 7, 7])
    assert unigram_nats(counts, letters_alone, EOS) == pytest.approx(-math.log(46 / 94))
    assert unigram_nats(counts, letters_alone) == pytest.approx(-math.log(46 / 105))
    expected = -(2 * math.log(11 / 105) + 14 * math.log(46 / 105)) / 16
    assert unigram_nats(counts, all_tokens) == pytest.approx(expected)


def test_in_a_stream_the_length_is_part_of_the_number() -> None:
    documents = letters(LENGTHS)
    counts = documents.counts()
    logits = torch.from_numpy(np.append(np.log(np.maximum(counts, 1e-9)), -np.inf))

    def unigram(query: Query) -> Tensor:
        return logits.expand(int(query.predict_mask_BL.sum()), -1)

    summary, _ = found(documents, Mdlm(), "wrap", unigram)
    assert (summary["length_given"], summary["padding"]) == (False, "none")
    assert (summary["tokens"], summary["eos_counted"]) == (documents.num_tokens, len(LENGTHS))
    assert summary["nelbo"] == pytest.approx(summary["unigram"], rel=0.01)
    assert summary["nelbo"] > WITH_LENGTH
    assert summary["bound_on"] == "-log p(texts, their ends included)"
    assert summary["documents_cut"] == 0  # nothing of a stream is told by where it is cut


@pytest.mark.parametrize("nats", [1000.0, math.inf, math.nan])
def test_a_model_that_is_lost_has_numbers_all_the_same(nats: float) -> None:
    documents = letters([3] * 12)
    _, tally = found(documents, Mdlm(), "wrap", leaning)
    lost = replace(tally, documents_D3=tally.documents_D3 * torch.tensor([nats, 1, 1]))
    summary = summarise(lost, documents, documents, Mdlm().scope(padded=False))
    shown = plain(summary)
    assert shown["perplexity"] is None
    assert shown["tokens"] == 48
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


@pytest.mark.parametrize("kind", [Mdlm, partial(Bd3lm, block_size=4)], ids=["whole", "twice"])
@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_of_cut_documents_every_end_is_predicted_but_only_their_own_is_counted(
    padding: Padding, kind: Callable[..., Any]
) -> None:
    """Whether a text is read once, or with a copy behind it."""
    documents = letters([1, 9, 3, 25])

    def even(query: Query) -> Tensor:
        logits = torch.zeros(int(query.predict_mask_BL.sum()), 6)
        logits[:, MASK] = -torch.inf
        return logits

    summary, tally = found(documents, kind(padding=padding), "pad", even, length=6)
    windows = [1, 3, 1, 7]
    assert tally.windows_D.tolist() == windows
    assert summary["documents_cut"] == 2
    # That a full window is not the last is nowhere predicted, so that the number may lie below
    # the entropy of texts with their ends: it says so.
    ends = "-log p(texts, their ends included), given how many windows each fills"
    assert summary["bound_on"] == (ends if padding == "generated" else GIVEN_LENGTH)
    own = torch.tensor([1.0, 9, 3, 25])
    counted = own + 1 if padding == "generated" else own
    coded = 5.0 * torch.tensor(windows) if padding == "generated" else own
    assert torch.equal(tally.documents_D3[:, 1], 4 * counted.double())
    assert torch.equal(tally.documents_D3[:, 2], 4 * (own + 1).double())
    if padding == "masked":
        return  # how many of the hidden positions are letters is chance
    nats = 4 * coded.double() * math.log(5)
    torch.testing.assert_close(tally.documents_D3[:, 0], nats, rtol=1e-6, atol=0)


def test_a_mask_token_in_the_text_is_given_and_not_counted() -> None:
    model = DiT(vocab_size=5, mask_id=B, width=2, num_heads=1)
    documents: Any = Documents([[A, B, A], [B, B], [A]])

    def even(query: Query) -> Tensor:
        logits = torch.zeros(int(query.predict_mask_BL.sum()), 5)
        logits[:, B] = -torch.inf
        return logits

    for how in ("wrap", "pad"):
        objective = Mdlm(padding="generated")
        windows = held_out(documents, 5, how)  # type: ignore[arg-type]
        found = evaluator(even, objective, model=model, batch=2)
        tally = document_losses(found, windows, samples=1)
        assert tally.documents_D3[:, 1].tolist() == [3, 1, 2]
        assert tally.ids_R.tolist() == [0, 3, 0, 3, 0]


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_the_number_does_not_depend_on_the_batch(batch: int) -> None:
    documents = letters(LENGTHS[:60])
    windows = held_out(documents, MOST + 2, "pad")
    one, other = (
        document_losses(evaluator(best, Mdlm(), seed=3, batch=size), windows, samples=2)
        for size in (60, batch)
    )
    torch.testing.assert_close(one.documents_D3, other.documents_D3)
    assert torch.equal(one.ids_R, other.ids_R)


def test_genie_claims_no_bound() -> None:
    assert not isinstance(Genie(), Bounded)
    assert isinstance(Mdlm(), Bounded)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "samples"), [("wrap", 1), ("wrap", 4), ("pad", 4)])
def test_the_interval_covers_the_chance_of_the_corruptions(how: Any, samples: int) -> None:
    """Short documents, several of which share a window and its corruption; 190 of 200 hold."""
    random = np.random.default_rng(samples)

    def evaluated(num: int, seed: int, samples: int) -> np.ndarray:
        share = random.beta(1, 2, num)
        texts = [
            random.choice([A, B], 1 + random.poisson(4), p=[1 - one, one]).tolist() for one in share
        ]
        windows = held_out(Documents(texts), 22, how)  # type: ignore[arg-type]
        found = evaluator(leaning, Mdlm(), seed=seed, batch=500)
        tally = document_losses(found, windows, samples=samples)
        return tally.documents_D3[:, :2].numpy()

    nats, tokens = evaluated(20_000, 0, 4).sum(axis=0)
    held = 0
    for seed in range(200):
        bounds = ratio_interval(evaluated(40, seed, samples), seed=seed).bounds
        assert bounds is not None
        held += bounds[0] <= nats / tokens <= bounds[1]
    assert 181 <= held <= 199
