"""Answers to the public harness: bounds with known answers, greedy and sampled texts."""

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from asking import Known
from torch import Tensor

from configs.errors import UserError
from data_pipeline.characters import write_character_tokenizer
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from model.draws import Draws
from model.networks.build import build
from model.objectives import NO_STATE
from model.objectives.autoregressive import Autoregressive
from model.objectives.mdlm import Mdlm
from model.objectives.sundae import Sundae
from model.query import Query
from model.verification.joint import Conditionals
from pretrain.trial import OBJECTIVES, run_config
from tools.harness.model import Palimpsest
from tools.harness.windows import framed, numbered, pieces, split_pair

BOS, EOS, LETTERS = 1, 2, (4, 5, 6)


class Words(Conditionals):
    """Texts of three letters abc between BOS and EOS."""

    vocab = 7

    @cached_property
    def outcomes(self) -> Tensor:
        return torch.tensor([[BOS, *text, EOS] for text in itertools.product(LETTERS, repeat=3)])

    @cached_property
    def probability(self) -> Tensor:
        number = torch.arange(27)
        weight = 0.1 + Draws(seed=1, split="words", batch=1).uniform("weight", number, 1)[:, 0]
        return weight / weight.sum()

    def given(self, text: str, context: str) -> float:
        """log p(text | context), where a context is a beginning."""
        ids = torch.tensor([[BOS, *("abc".index(c) + 4 for c in text), EOS]])
        hidden = ids.clone()
        hidden[0, 1 + len(context) : -1] = self.mask
        return float(self.masked_log_prob(ids) - self.masked_log_prob(hidden))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("abc") / "tokenizer.json"
    write_character_tokenizer(path, "abc")
    return load_tokenizer(path)


def loaded(tokenizer: Tokenizer, network: Any, objective: Any, length: int = 5) -> Any:
    words = Words()
    data = SimpleNamespace(sequence_length=length, packing="wrap")
    return SimpleNamespace(
        config=SimpleNamespace(objective=objective, model=words.config, data=data),
        network=network,
        device=torch.device("cpu"),
        state=NO_STATE,
        tokenizer=lambda: tokenizer,
    )


def request(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def true_conditionals(query: Query) -> Tensor:
    return Words().denoise(query.ids_BL, query.level_BK, query.predict_mask_BL)


def left_to_right(query: Query) -> Tensor:
    """log p(x_j | x_1 ... x_{j-1}) from inputs that are one position late."""
    words, rows = Words(), []
    for row, column in query.predict_mask_BL.nonzero().tolist():
        ids = torch.full((1, 5), words.mask)
        ids[0, :column] = query.ids_BL[row, 1 : column + 1]
        rows.append(words.denoise(ids, torch.ones(1, 1), torch.arange(5)[None] == column))
    return torch.cat(rows)


PAIRS = [("", "abc"), ("a", "bc"), ("ab", "c"), ("b", "ca")]


def test_the_bound_of_true_conditionals_is_the_likelihood(tokenizer: Tokenizer) -> None:
    network = Known(true_conditionals)
    found = []
    for seed in range(100):
        model = Palimpsest(loaded(tokenizer, network, Mdlm()), samples=4, seed=seed, batch_size=64)
        found.append([bound for bound, _ in model.loglikelihood([request(*p) for p in PAIRS])])
    bounds = torch.tensor(found, dtype=torch.float64)
    exact = torch.tensor([Words().given("".join(pair), pair[0]) for pair in PAIRS]).double()
    error = bounds.std(dim=0) / math.sqrt(len(bounds))
    assert ((bounds.mean(dim=0) - exact).abs() < 4 * error + 1e-6).all()
    assert error[1] > 0
    assert error[2] < 1e-6, "one token has one order"


def test_an_exact_objective_takes_one_corruption(tokenizer: Tokenizer) -> None:
    rows = []

    def logits(query: Query) -> Tensor:
        rows.append(len(query.ids_BL))
        return left_to_right(query)

    model = Palimpsest(loaded(tokenizer, Known(logits), Autoregressive()), samples=50)
    bounds = model._nats(model._windows([split_pair(tokenizer, *pair) for pair in PAIRS]))
    assert -torch.tensor(bounds) == pytest.approx(
        torch.tensor([Words().given("".join(pair), pair[0]) for pair in PAIRS]), rel=1e-5
    )
    assert sum(rows) == len(PAIRS)


def test_a_text_has_the_same_bound_whatever_else_is_asked(tokenizer: Tokenizer) -> None:
    def bounds(pairs: Sequence[tuple[str, str]], batch: int) -> list[float]:
        network = Known(true_conditionals)
        model = Palimpsest(loaded(tokenizer, network, Mdlm()), samples=6, batch_size=batch)
        return [bound for bound, _ in model.loglikelihood([request(*pair) for pair in pairs])]

    alone = bounds(PAIRS[:1], 64)
    together = bounds([*PAIRS[::-1], ("c", "cc")], 4)
    assert together[3] == pytest.approx(alone[0], rel=1e-6)
    assert bounds([PAIRS[0], PAIRS[0]], 3)[0] == pytest.approx(alone[0], rel=1e-6)


def test_a_long_text_is_scored_in_windows(tokenizer: Tokenizer) -> None:
    words, empty = Words(), request("")
    model = Palimpsest(loaded(tokenizer, Known(left_to_right), Autoregressive()))
    found = model.loglikelihood_rolling([request("abcbca"), empty, request("abca")])
    assert found == pytest.approx(
        [
            words.given("abc", "") + words.given("bca", ""),
            0.0,
            words.given("abc", "") + words.given("bca", "bc"),
        ],
        rel=1e-5,
    )
    assert pieces([1, 2, 3, 4, 5], 3) == [([], [1, 2, 3]), ([3], [4, 5])]
    assert pieces([1, 2], 3) == [([], [1, 2])]


def by_column(letters: dict[int, int]) -> Any:
    """Logits that are sure of one id at each column."""

    def logits(query: Query) -> Tensor:
        columns = query.predict_mask_BL.nonzero()[:, 1] % query.ids_BL.shape[1]
        found = torch.full((len(columns), 8), -30.0)
        for row, column in enumerate(columns.tolist()):
            found[row, letters.get(column, EOS)] = 0.0
        return found

    return Known(logits)


def test_greedy_is_what_the_sampler_writes(tokenizer: Tokenizer) -> None:
    network = by_column({1: 4, 2: 5, 3: 6})
    model = Palimpsest(loaded(tokenizer, network, Mdlm()), samples=2)
    asked = [("", "abc"), ("a", "bc"), ("a", "cc"), ("b", "bc"), ("abc", "")]
    found = [greedy for _, greedy in model.loglikelihood([request(*pair) for pair in asked])]
    assert found == [True, True, False, True, True]


def test_texts_end_at_until_or_eos(tokenizer: Tokenizer) -> None:
    network = by_column({2: 4, 3: 5, 4: 6, 5: 4, 7: 5})
    model = Palimpsest(loaded(tokenizer, network, Mdlm(), length=10))
    asked = [{}, {"until": ["c"]}, {"until": "b"}, {"until": [], "max_gen_toks": 2}]
    found = model.generate_until([request("a", settings) for settings in asked])
    assert found == ["abca", "ab", "a", "ab"]


def test_texts_are_sampled_where_the_task_asks_for_it(tokenizer: Tokenizer) -> None:
    def even(query: Query) -> Tensor:
        logits = torch.full((int(query.predict_mask_BL.sum()), 8), -30.0)
        logits[:, list(LETTERS)] = 0.0
        return logits

    def texts(settings: dict[str, Any]) -> list[str]:
        model = Palimpsest(loaded(tokenizer, Known(even), Mdlm(), length=14))
        return model.generate_until([request("a", settings)] * 8)

    assert len(set(texts({"temperature": 1.0}))) == 1, "greedy, whatever the temperature"
    sampled = texts({"do_sample": True, "temperature": 1.0})
    assert len(set(sampled)) == 8, "repeats of a request are other samples"
    assert texts({"do_sample": True, "temperature": 1.0}) == sampled
    with pytest.raises(UserError, match="the task sets top_k, which sampler ancestral does not"):
        texts({"do_sample": True, "top_k": 5})


def test_what_does_not_fit_is_cut_from_the_left_and_said_once(
    tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def logits(query: Query) -> Tensor:
        seen.extend(query.ids_BL.tolist())
        return true_conditionals(query)

    model = Palimpsest(loaded(tokenizer, Known(logits), Mdlm()), samples=1)
    for _ in range(2):
        model.loglikelihood([request("aaaab", "c"), request("b", "ca")])
    assert [BOS, 4, 5, 7, EOS] in seen
    told = capsys.readouterr().err
    assert told.count("cut from the left") == 1
    assert "1 of 2 contexts are too long for the 5 positions" in told
    [text] = model.generate_until([request("aaaab", {"max_gen_toks": 50})])
    assert len(text) == 1, "half the window is for the context, rounded up"
    with pytest.raises(UserError, match=r"has 4 tokens, .* on 5 positions, which hold 3"):
        model.loglikelihood([request("", "abca")])


def test_contexts_and_continuations_are_one_text(corpus: Path) -> None:
    bpe = load_tokenizer(corpus)
    for context, continuation in [
        ("The assert statement ", "is a way"), ("def f(x):\n    ", "return"), ("ass", "ert"),
        ("", "a word"), ("a word", ""),
    ]:  # fmt: skip
        given, scored = split_pair(bpe, context, continuation)
        assert given + scored == bpe.encode([context + continuation])[0]
        assert context.startswith(bpe.decode(given))
        assert scored or not continuation


def test_windows_are_numbered_by_their_text(tokenizer: Tokenizer) -> None:
    one, other = framed(tokenizer, [4], [5], 5), framed(tokenizer, [], [4, 5], 5)
    found = numbered([one, other, one])
    assert len({window.number for window in found}) == 3
    assert numbered([other, one])[1] == found[0]
    assert all(0 <= window.number < 2**40 for window in found)


def test_what_cannot_be_scored_is_refused(tokenizer: Tokenizer) -> None:
    model = Palimpsest(loaded(tokenizer, Known(true_conditionals), Sundae()))
    with pytest.raises(UserError, match="objective sundae has no bound on the likelihood"):
        model.loglikelihood([request("a", "b")])


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_answers_or_refuses(name: str, tokenizer: Tokenizer) -> None:
    config = run_config(name, model={"vocab_size": 7})
    network = build(config.model).eval()
    run: Any = SimpleNamespace(
        config=config, network=network, device="cpu", state=NO_STATE, tokenizer=lambda: tokenizer
    )
    if config.model.reads_source:
        with pytest.raises(UserError, match="an encoder-decoder answers no task"):
            Palimpsest(run)
        return
    model = Palimpsest(run, samples=2)
    asked = [request("ab", "ccab"), request("", "a"), request("abcab", "cab")]
    if config.objective.bound is None:
        with pytest.raises(UserError, match="no bound"):
            model.loglikelihood(asked)
    else:
        assert all(math.isfinite(bound) and bound < 0 for bound, _ in model.loglikelihood(asked))
    texts = model.generate_until([request("ab", {"max_gen_toks": 5})])
    assert set(texts[0]) <= set("abc")
