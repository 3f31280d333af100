"""Scores and choices, against numbers that can be worked out by hand."""

import math
from pathlib import Path

import pytest

from configs.errors import UserError
from tools.evaluate.choose import choose
from tools.evaluate.diversity import distinct, entropy
from tools.evaluate.pairs import (
    Mentions,
    References,
    count_mentions,
    nearest_targets,
    random_targets,
    read_references,
)
from tools.evaluate.text_scores import bleu, rouge, self_bleu

TRAINING = References(
    sources=["name : A B | food : fish", "name : C | food : meat"],
    targets=[["A B sells fish .", "fish at A B ."], ["C has meat ."]],
)


def test_bleu_counts_every_reference() -> None:
    texts = ["the cat sat on the mat", "a dog ran in the park"]
    references = [["the cat sat on the mat", "x"], ["a dog ran in the park"]]
    score, signature = bleu(texts, references)
    assert score == pytest.approx(100.0)
    assert "tok:none" in signature
    assert "nrefs:var" in signature
    assert bleu(texts, [["x"], ["a dog ran in the park"]])[0] < 75


def test_rouge_takes_the_best_reference() -> None:
    found = rouge(["a b c d"], [["x y", "a b c e"]])
    assert found["rouge1"] == pytest.approx(75.0)
    assert found["rouge2"] == pytest.approx(200 / 3)
    assert found["rougeL"] == pytest.approx(75.0)


def test_diversity() -> None:
    assert distinct([list("abab"), list("ab")], 1) == pytest.approx(2 / 6)
    assert distinct([list("abab"), list("ab")], 2) == pytest.approx(2 / 4)
    assert distinct([[]], 2) == 0.0
    assert entropy([3, 3, 5, 7]) == pytest.approx(1.5 * math.log(2))
    assert entropy(range(9)) == pytest.approx(math.log(9))
    assert entropy([]) == 0.0
    assert self_bleu([["a b c d e"] * 3]) == pytest.approx(100.0)
    assert self_bleu([["a b c d"], ["x"]]) is None


def test_the_choice_of_least_risk_never_sees_a_reference() -> None:
    candidates = ["x y z", "the cat sat here", "the cat sat there", "the cat sat down"]
    assert choose(candidates, "single") == "x y z"
    assert choose(candidates, "mbr", ["x y z"]) in candidates[1:]
    assert choose(candidates, "oracle", ["the cat sat down"]) == "the cat sat down"
    assert choose(candidates[:1], "mbr") == "x y z"


def test_pairs_of_one_source_are_one_entry(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    lines = [("s", "t1"), ("r", "t2"), ("s", "t3")]
    text = "\n".join(f'{{"source": "{s}", "target": "{t}"}}' for s, t in lines)
    file.write_text(text, encoding="utf-8")
    found = read_references(file, ("source", "target"))
    assert found == References(sources=["s", "r"], targets=[["t1", "t3"], ["t2"]])


def test_baselines_need_no_model() -> None:
    asked = References(sources=["name : C | food : fish | x : y"], targets=[["?"]])
    assert nearest_targets(asked, TRAINING) == ["A B sells fish ."] or nearest_targets(
        asked, TRAINING
    ) == ["C has meat ."]
    every = [target for own in TRAINING.targets for target in own]
    assert random_targets(asked, TRAINING, 0)[0] in every


def test_what_must_be_said_is_counted_apart_for_unseen_values() -> None:
    sources = ["name : A B | food : fish", "name : C", "name : New | x : y"]
    outputs = ["at A B one eats", "nothing", "New is here"]
    found = count_mentions(r"name : ([^|]*?) *(?:\||$)", sources, outputs, TRAINING)
    assert found == {"seen": Mentions(said=1, of=2), "unseen": Mentions(said=1, of=1)}
    for pattern in ("name", "(", "(a)(b)"):
        with pytest.raises(UserError, match="--must-say"):
            count_mentions(pattern, sources, outputs, TRAINING)
