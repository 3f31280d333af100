"""`tools.evaluate RUN`: estimators, conventions, units, targets, and what it writes."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards import open_split

UNITS = ("perplexity", "bits_per_byte", "bits_per_character")


@pytest.mark.parametrize("options", [
    [], ["--estimator=stratified-time"], ["--estimator=fixed-l"], ["--convention=mdlm"],
    ["--target-ci=0.02", "--most-samples=9"],
])  # fmt: skip
def test_the_number_does_not_depend_on_the_batch(
    masked: Path, evaluated: Any, options: list[str]
) -> None:
    one, other = (
        evaluated(masked, "--samples=2", *options, "--batch", batch).summary for batch in (7, 64)
    )
    assert other["nelbo"] == pytest.approx(one["nelbo"], rel=1e-6)
    assert other["samples"] == one["samples"]


def test_estimators_agree_within_their_noise_and_are_named(masked: Path, evaluated: Any) -> None:
    found = {}
    for name in ("exact-k", "stratified-time", "fixed-l"):
        found[name] = evaluated(masked, "--estimator", name, "--samples=16").summary
        assert found[name]["estimator"] == name
    nelbos = [summary["nelbo"] for summary in found.values()]
    assert len(set(nelbos)) == 3
    assert nelbos == pytest.approx([nelbos[0]] * 3, rel=0.1)
    assert evaluated(masked, "--samples=16").summary == found["exact-k"], "the default"


def test_every_unit_has_an_interval_which_is_that_of_the_nats(
    masked: Path, evaluated: Any, small_corpus: Path
) -> None:
    got, split = evaluated(masked).summary, open_split(small_corpus, "valid")
    manifest = split.manifest
    bits = split.num_tokens / math.log(2)
    assert manifest.characters is not None
    for nelbo, unit in [
        (got["nelbo"], {name: got[name] for name in UNITS}),
        *(
            (got["nelbo_ci95"][end], {name: got[f"{name}_ci95"][end] for name in UNITS})
            for end in (0, 1)
        ),
    ]:
        assert unit["perplexity"] == pytest.approx(math.exp(nelbo))
        assert unit["bits_per_byte"] == pytest.approx(nelbo * bits / manifest.bytes)
        assert unit["bits_per_character"] == pytest.approx(nelbo * bits / manifest.characters)
    assert got["perplexity_ci95"][0] < got["perplexity"] < got["perplexity_ci95"][1]


def test_what_is_counted_is_said(masked: Path, evaluated: Any, small_corpus: Path) -> None:
    split = open_split(small_corpus, "valid")
    found = evaluated(masked)
    got = found.summary
    assert got["convention"] == "documents"
    assert got["counted"].startswith("the tokens of all documents, and the EOS after each")
    assert got["counted"] in found.err
    assert (got["tokens"], got["frame_counted"]) == (split.num_tokens, 0)
    assert (got["windows"], got["window_tokens"]) == (-(-split.num_tokens // 30), 30)
    assert got["corruptions_half_width"] is None


def test_the_published_convention(masked: Path, evaluated: Any, small_corpus: Path) -> None:
    split = open_split(small_corpus, "valid")
    found = evaluated(masked, "--convention=mdlm")
    got, full = found.summary, split.num_tokens // 30
    assert split.num_tokens % 30
    assert (got["convention"], got["estimator"]) == ("mdlm", "stratified-time")
    assert (got["samples"], got["windows"]) == (1, full)
    assert (got["tokens"], got["frame_counted"]) == (32 * full, 2 * full)
    assert (got["unigram"], got["ratio"]) == (None, None)
    said = (
        f"all 32 positions of {full} windows of joined documents, BOS and EOS around each "
        f"included; the last {split.num_tokens % 30} tokens, which fill no window, are dropped"
    )
    assert got["counted"] == said
    assert said in found.err
    nats = got["nelbo"] * got["tokens"] * split.num_tokens / (30 * full)
    assert got["bits_per_byte"] == pytest.approx(nats / math.log(2) / split.manifest.bytes)


def test_corruptions_are_drawn_until_they_add_little(masked: Path, evaluated: Any) -> None:
    some = evaluated(masked, "--target-ci=0.05").summary
    assert some["samples"] >= 8
    assert some["corruptions_half_width"] <= 0.05 == some["target_ci"]
    wide = evaluated(masked, "--target-ci=100", "--samples=3")
    assert wide.summary["samples"] == 8
    assert "(--target-ci 100 reached)" in wide.err
    ended = evaluated(masked, "--target-ci=1e-6", "--most-samples=11")
    assert ended.summary["samples"] == 11
    assert ended.summary["corruptions_half_width"] > 1e-6
    assert "not reached, at --most-samples" in ended.err


def test_each_document_is_written(
    masked: Path, evaluated: Any, small_corpus: Path, tmp_path: Path
) -> None:
    file, split = tmp_path / "documents.jsonl", open_split(small_corpus, "valid")
    got = evaluated(masked, "--samples-out", file).summary
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(split.num_documents))
    starts = split.document_starts()
    assert [line["tokens"] for line in lines] == (starts[1:] - starts[:-1]).tolist()
    nats, tokens = (sum(line[name] for line in lines) for name in ("nats", "tokens"))
    assert nats / tokens == pytest.approx(got["nelbo"], rel=1e-9)
    for line in lines:
        assert line["nats_per_token"] == pytest.approx(line["nats"] / line["tokens"])


@pytest.mark.parametrize(
    ("blocks", "words", "message"),
    [
        ({"objective": {"name": "udlm"}}, ["--estimator=exact-k"], "udlm has none to choose from"),
        ({"objective": {"name": "udlm"}}, ["--convention=mdlm"], "not of udlm"),
        ({"data": {"packing": "pad"}}, ["--convention=mdlm"], "joins documents"),
        ({"objective": {"name": "sundae"}}, ["--target-ci=1"], "sundae has no likelihood bound"),
        ({}, ["--samples-out=/nowhere/x"], "--samples-out /nowhere/x: its directory does not"),
        ({}, ["--detokenize=ptb"], "--detokenize is for --text"),
        ({}, ["--text=x", "--split=valid"], "--text takes the place of --split"),
    ],
    ids=lambda value: None,
)
def test_what_does_not_fit_is_one_line(
    checkpoint: Callable[..., Path], evaluated: Any, blocks: Any, words: list[str], message: str
) -> None:
    found = evaluated(checkpoint(**blocks), *words)
    assert found.status == 2
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert message in found.err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--estimator=best", "argument --estimator: invalid choice: 'best'"),
        ("--target-ci=0", "argument --target-ci: 0 is not more than 0"),
        ("--target-ci=-1", "argument --target-ci: -1 is not more than 0"),
        ("--most-samples=7", "argument --most-samples: 7 is not at least 8"),
    ],
)
def test_options_have_bounds(capsys: Any, word: str, message: str) -> None:
    from tools.evaluate import __main__ as evaluate

    with pytest.raises(SystemExit) as ended:
        evaluate.main(["RUN", word])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
