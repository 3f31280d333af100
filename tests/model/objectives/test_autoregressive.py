"""The autoregressive baseline: what it reads, and that its nats are those of a distribution."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from asking import configured
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.needs import misfits
from model.networks.attention_layouts import Causal
from model.networks.base import Network
from model.networks.build import build
from model.networks.initialize import initial_value
from model.objectives import LOSS, Batch, Bounded, Noisy, sum_losses
from model.objectives.autoregressive import Autoregressive
from model.query import Query
from pretrain.evaluation.bound import document_losses
from pretrain.evaluation.evaluator import Evaluator
from pretrain.trial import SyntheticWindows, run_config

DRAWS = Draws(seed=0, split="train", batch=4)
OBJECTIVE = Autoregressive()
SMALL: dict[str, Any] = {"vocab_size": 11, "width": 16, "num_layers": 2, "num_heads": 2}
EOS = 1


def network(**changes: Any) -> Network:
    """Of which no weight is zero, in float64."""
    found = build(configured(**{**SMALL, **changes})).double().eval()
    with torch.no_grad():
        for parameter, called in found.parameter_names().items():
            parameter.add_(initial_value(f"noise.{called}.q.weight", parameter.shape, 1, 0.2))
    return found


def text(num: int, length: int, vocab: int = 11) -> Tensor:
    return (vocab * DRAWS.uniform("text", torch.arange(num), length)).long()


def batch_of(tokens_BL: Tensor, **others: Tensor) -> Batch:
    return {
        "tokens": tokens_BL,
        "valid": torch.ones_like(tokens_BL, dtype=torch.bool),
        "position": torch.arange(len(tokens_BL)),
        **others,
    }


def nats(model: Network, noisy: Noisy) -> Tensor:
    """Of each sample, ``[B]`` float64."""
    with torch.no_grad():
        losses_M = model.ask(noisy, lambda found: OBJECTIVE.bound_losses(found, noisy))
    zeros_B = torch.zeros(len(noisy.ids_BL), dtype=torch.float64)
    return zeros_B.index_add(0, noisy.predict_mask_BL.nonzero()[:, 0], losses_M.double())


def logits(model: Network, query: Query) -> Tensor:
    """``[B, L, V]`` at all positions."""
    query = replace(query, predict_mask_BL=torch.ones_like(query.predict_mask_BL))
    with torch.no_grad():
        found: Tensor = model(query)["logits"]
    return found.unflatten(0, query.ids_BL.shape)[..., : model.config.vocab_size]


# -- what is read and what is predicted -----------------------------------------------------------


def test_each_column_reads_the_token_before_it_and_predicts_its_own() -> None:
    model = DiT(**SMALL)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    batch = batch_of(torch.tensor([[5, 6, 7, 8], [5, 1, 0, 0]]), valid=valid)
    noisy = OBJECTIVE.corrupt(batch, DRAWS, model)
    assert noisy.ids_BL.tolist() == [[11, 5, 6, 7], [11, 5, 1, 0]]
    assert torch.equal(noisy.predict_mask_BL, valid)
    assert torch.equal(noisy.target_BL, batch["tokens"])
    assert noisy.layout == Causal() == OBJECTIVE.layout(4)
    assert noisy.level_BK.tolist() == [[0.0], [0.0]]
    assert int(noisy.count()) == 6
    assert noisy.tokens is not None
    assert int(noisy.tokens) == 6


def test_a_mask_of_the_text_itself_is_read_but_not_predicted() -> None:
    model = DiT(**SMALL, mask_id=3)
    tokens = torch.tensor([[5, 3, 7]])
    noisy = OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model)
    assert noisy.ids_BL.tolist() == [[3, 5, 3]]
    assert noisy.predict_mask_BL.tolist() == [[True, False, True]]
    assert int(noisy.count()) == 2
    batch = batch_of(tokens) | {"free": tokens > 0}
    assert OBJECTIVE.counted(batch, model).tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "transformer", "num_kv_heads": 1},
        {"name": "transformer", "norm_first": False, "num_positions": 8},
    ],
    ids=["adaln", "pre_norm", "post_norm"],
)
def test_a_prediction_depends_on_all_tokens_before_it_and_on_no_other(
    changes: dict[str, Any],
) -> None:
    model, tokens = network(**changes), text(1, 8)
    before = logits(model, OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model.config))
    for place in range(8):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 11
        after = logits(model, OBJECTIVE.corrupt(batch_of(other), DRAWS, model.config))
        moved_L = (after - before)[0].abs().amax(dim=-1)
        assert bool((moved_L[: place + 1] == 0).all())
        assert bool((moved_L[place + 1 :] > 1e-6).all())


def test_padding_changes_nothing() -> None:
    for hidden in (False, True):
        model, tokens = network(hide_padding=hidden), text(2, 8)
        valid = torch.arange(8) < torch.tensor([[5], [8]])
        first = OBJECTIVE.corrupt(batch_of(tokens, valid=valid), DRAWS, model.config)
        other = torch.where(valid, tokens, (tokens + 3) % 11)
        second = OBJECTIVE.corrupt(batch_of(other, valid=valid), DRAWS, model.config)
        torch.testing.assert_close(nats(model, first), nats(model, second), rtol=0, atol=0)


def test_the_loss_and_its_gradient_are_those_of_cross_entropy() -> None:
    model, tokens = network(), text(3, 6)
    noisy = OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model.config)
    sums = sum_losses(OBJECTIVE, model.prediction(model(noisy)), noisy)
    (sums.terms[LOSS] / noisy.count()).backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    wanted = torch.nn.functional.cross_entropy(model(noisy)["logits"], tokens.flatten())
    wanted.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(
        (sums.terms[LOSS] / 18).double(), wanted, rtol=1e-6, atol=0, check_dtype=False
    )
    assert len(found) > 20
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7)


# -- documents that share a sample ----------------------------------------------------------------


def test_of_the_document_before_only_its_eos_is_seen() -> None:
    """And the one before that not at all."""
    model = network()
    tokens = torch.tensor([[4, 5, EOS, 6, 7, 8, EOS, 9, 3, 2]])
    segment = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3, 3]])

    def of_last(tokens_BL: Tensor) -> Tensor:
        batch = batch_of(tokens_BL, segment=segment)
        return logits(model, OBJECTIVE.corrupt(batch, DRAWS, model.config))[:, 7:]

    before = of_last(tokens)
    for place in range(7):
        other = tokens.clone()
        other[0, place] = 10
        assert torch.equal(of_last(other), before) == (place != 6)
    # Rotary positions are relative: it stands alone behind its start symbol.
    alone = Query(
        ids_BL=torch.tensor([[EOS, 9, 3]]),
        level_BK=torch.zeros(1, 1),
        predict_mask_BL=torch.ones(1, 3, dtype=torch.bool),
        layout=Causal(),
    )
    torch.testing.assert_close(logits(model, alone), before)


def test_without_segments_all_that_stands_before_is_seen() -> None:
    model, tokens = network(), torch.tensor([[4, 5, EOS, 6, 7]])
    first = logits(model, OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model.config))
    tokens = torch.tensor([[10, 5, EOS, 6, 7]])
    second = logits(model, OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model.config))
    assert not torch.allclose(first[:, 3:], second[:, 3:])


# -- the likelihood -------------------------------------------------------------------------------


def every_text(vocab: int, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(vocab), repeat=length)))


def test_the_probabilities_of_all_texts_sum_to_one() -> None:
    model = network(vocab_size=3)
    tokens = every_text(3, 4)
    noisy = OBJECTIVE.corrupt(batch_of(tokens), DRAWS, model.config)
    p = (-nats(model, noisy)).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    assert float(p.std() / p.mean()) > 0.1  # of a network that prefers some
    free = (torch.arange(4) >= 1).expand(tokens.shape)
    given = OBJECTIVE.bound_corrupt(batch_of(tokens) | {"free": free}, DRAWS, model.config)
    by_first = (-nats(model, given)).exp().view(3, -1).sum(dim=1)
    torch.testing.assert_close(by_first, torch.ones(3).double(), rtol=0, atol=1e-6)


def test_the_probabilities_of_all_padded_texts_and_of_those_without_an_end_sum_to_one() -> None:
    """EOS ends a text and has its nats; what is behind it has none."""
    model = network(vocab_size=3)
    tokens = every_text(3, 4)
    ends_BL = tokens == EOS
    behind_BL = ends_BL.cumsum(dim=1) - ends_BL.long() > 0
    kept = (~behind_BL | (tokens == 0)).all(dim=1)  # of those that end alike one
    tokens, valid = tokens[kept], ~behind_BL[kept]
    batch = batch_of(tokens, valid=valid, free=valid, ending=~valid | (tokens == EOS))
    counted = OBJECTIVE.counted(batch, model.config)
    assert torch.equal(counted, valid)
    noisy = OBJECTIVE.bound_corrupt(batch, DRAWS, model.config)
    assert float((-nats(model, noisy)).exp().sum()) == pytest.approx(1, abs=1e-6)
    scope = OBJECTIVE.scope(padded=True)
    assert not scope.length_given
    assert scope.end_masked
    assert scope.exact
    assert not OBJECTIVE.scope(padded=False).length_given


def test_any_number_of_held_out_samples_gives_one_number() -> None:
    config = run_config("autoregressive")
    model = network(vocab_size=config.model.vocab_size)

    def tally(seed: int, samples: int) -> Tensor:
        evaluator = Evaluator(
            ask=model.ask, objective=OBJECTIVE, model=model.config, seed=seed, batch=3
        )
        with torch.no_grad():
            found = document_losses(evaluator, SyntheticWindows(config=config), samples=samples)
        return found.documents_D3 / samples

    assert isinstance(OBJECTIVE, Bounded)
    torch.testing.assert_close(tally(0, 1), tally(0, 3), rtol=1e-12, atol=0)
    torch.testing.assert_close(tally(0, 1), tally(7, 1), rtol=0, atol=0)


# -- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shifted_output": True}, "leave model.shifted_output out"),
        ({"attention": "causal"}, "leave model.attention"),
        ({"causal_annealing_steps": 10}, "model.causal_annealing_steps out"),
    ],
)
def test_a_network_that_moves_or_masks_by_itself_is_refused(
    changes: dict[str, Any], told: str
) -> None:
    model = DiT(**SMALL, **changes)
    (found,) = misfits(OBJECTIVE.needs, model.offers, has_source=False)
    assert told in found


def test_a_network_with_time_conditioning_sees_level_0() -> None:
    tokens = text(2, 6)
    plain, timed = network(), network(time_conditioning=True)
    noisy = OBJECTIVE.corrupt(batch_of(tokens), DRAWS, plain.config)
    torch.testing.assert_close(nats(plain, noisy), nats(timed, noisy))
