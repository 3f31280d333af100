"""`tools.evaluate --task samples`: judges against known answers, and the rows beside each other."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import load
from data_pipeline.shards import open_split
from data_pipeline.tokenizer import load_tokenizer
from data_pipeline.windows import held_out
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.evaluation.of_checkpoint import held_out_bound
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.planner.plan import plan
from pretrain.run.directory import RunDirectory
from tools.evaluate import __main__ as evaluate
from tools.evaluate.judges import BETWEEN, Text, text_of
from tools.evaluate.judges import ngram as ngrams
from tools.evaluate.judges.exact_run import run_judge
from tools.evaluate.judges.ngram import ngram_judge
from tools.evaluate.judges.pretrained import pretrained_judge
from tools.evaluate.sample_scores import scores

CPU = torch.device("cpu")
RUNS = {
    "masked": ("stop_after=2",),
    "exact": (
        "objective={name: autoregressive}",
        "model.time_conditioning=false",
        "data.document_mask=true",
        "stop_after=2",
    ),
}


@pytest.fixture(scope="module")
def runs(
    pool: Pool, demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    found = {}
    for name, own in RUNS.items():
        path = tmp_path_factory.mktemp("judged") / name
        words = ["checkpoint.every=2", "eval.every=0", *own]
        words += [f"run_dir={path}", f"data.demo_dir={demo_dir}"]
        config = load(RunConfig, [root / "configs" / "tiny.yaml"], words)
        RunDirectory(path).check(config)
        assert set(pool.run(plan(config, None).ranks, train_rank, config, path)) == {0}
        found[name] = path
    return found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: object) -> SimpleNamespace:
        status = evaluate.main([*map(str, words)])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


@dataclass(frozen=True)
class Uniform:
    """Gives every token 1/8."""

    facts: Any = None

    def nats(self, texts: Sequence[Text]) -> np.ndarray:
        return np.array([(len(one.ids) * math.log(8), len(one.ids)) for one in texts], dtype=float)


def test_scores_are_what_they_are_called() -> None:
    texts = [Text(ids=[1, 2, 1, 2], text="ab cd äh"), Text(ids=[3, 4, 5, 6], text="x")] * 6
    row = scores(texts, Uniform(), seed=0)
    assert row["perplexity"] == pytest.approx(8)
    assert row["perplexity_ci95"] == pytest.approx((8, 8))
    assert row["nats_per_token"] == pytest.approx(math.log(8))
    assert row["nats_per_byte"] == pytest.approx(8 * math.log(8) / (9 + 1))
    assert row["nats_per_word"] == pytest.approx(8 * math.log(8) / (3 + 1))
    assert row["entropy"] == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert row["entropy_of_all"] == pytest.approx(1 / 2 * math.log(4) + 1 / 2 * math.log(8))
    assert row["distinct1"] == 6 / 48
    assert row["distinct2"] == 5 / 36
    assert (row["texts"], row["tokens"]) == (12, 48)
    empty = scores([Text(ids=[], text="")], Uniform(), seed=0)
    assert empty["perplexity"] is None
    assert empty["nats_per_byte"] is None
    assert empty["perplexity_ci95"] is None


def test_the_rows_of_a_sweep_and_the_held_out_one(
    runs: dict[str, Path], said: Any, corpus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.json"
    words = (runs["masked"], "--task", "samples", "--num", 12, "--length", 32, "--out", file)
    done = said(*words, "--sweep", "steps=2,5", "--batch", 5)
    found = json.loads(done.out)
    assert json.loads(file.read_text()) == found
    assert [(row["swept"], row["evaluations"]) for row in found["rows"]] == [
        ("steps=2", 2),
        ("steps=5", 5),
    ]
    for row in [*found["rows"], found["reference"]]:
        assert row["texts"] == 12
        assert row["tokens"] == row["judged_tokens"] == 12 * 30
        assert row["perplexity_ci95"][0] < row["perplexity"] < row["perplexity_ci95"][1]
    assert found["reference"]["perplexity"] < 100 < found["rows"][0]["perplexity"]
    assert found["reference"]["copied"] > 0.02
    head, *rows = done.err.splitlines()[-4:]
    assert head.split()[:2] == ["NFE", "perplexity"]
    assert [row.split("  ")[0] for row in rows] == [
        "ancestral steps=2",
        "ancestral steps=5",
        "held-out text",
    ]
    again = said(*words, "--sampler", "steps=5", "--batch", 12)
    (row,) = json.loads(again.out)["rows"]
    assert row == {**found["rows"][1], "swept": None}
    tokenizer, valid = load_tokenizer(corpus), open_split(corpus, "valid")
    assert found["reference"]["split"] == "valid"
    last = valid.num_tokens // 30 - 1
    places = np.linspace(0, last, 12).astype(int).tolist()
    texts = [text_of(valid.tokens(30 * at, 30 * at + 30).tolist(), tokenizer) for at in places]
    judge = ngram_judge(open_split(corpus, "train"), tokenizer.vocab_size, start=None)
    assert found["reference"]["perplexity"] == scores(texts, judge, seed=0)["perplexity"]


def test_a_run_judges_as_its_own_held_out_number(runs: dict[str, Path], corpus: Path) -> None:
    """Its nats of all held-out windows sum to the exact NELBO, whatever the batch."""
    loaded, tokenizer = load_denoiser(runs["exact"], "ema"), load_tokenizer(corpus)
    found = held_out_bound(loaded, "valid", which="ema", samples=1, batch=32, seed=0)
    wanted = found.summary
    windows = held_out(open_split(corpus, "valid"), loaded.config.data.sequence_length, "wrap")
    texts = [
        text_of(row[1:-1].tolist(), tokenizer)
        for part in windows.read(0, len(windows))
        for row in part["tokens"]
    ]
    judge = run_judge(runs["exact"], CPU, tokenizer.sha256, batch=50)
    nats, tokens = judge.nats(texts).sum(axis=0)
    assert tokens == wanted["tokens"]
    assert nats / tokens == pytest.approx(wanted["nelbo"], rel=1e-6)
    few = [Text(ids=[*texts[0].ids, *texts[1].ids[:20]], text=""), texts[2]]
    apart = run_judge(runs["exact"], CPU, tokenizer.sha256, batch=1).nats(few)
    assert judge.nats(few) == pytest.approx(apart, rel=1e-6)
    assert apart[0, 1] == len(texts[0].ids) + 20
    assert apart[0, 0] > float(judge.nats(texts[:1])[0, 0])


def test_a_run_of_another_tokenizer_judges_text(runs: dict[str, Path], corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus)
    text = "The statement is used."
    own = [Text(ids=tokenizer.encode([text])[0], text=text)]
    same = run_judge(runs["exact"], CPU, tokenizer.sha256, batch=4)
    other = run_judge(runs["exact"], CPU, "of another", batch=4)
    assert same.facts["judge_tokenizer"] == "the run's"
    assert other.facts["judge_tokenizer"] == "its own: compare nats per byte"
    assert other.nats([Text(ids=[5] * 99, text=text)]) == pytest.approx(same.nats(own))


def test_a_text_has_blank_lines_between_its_documents(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus)
    first, second = tokenizer.encode(["one text", "another"])
    found = text_of([*first, tokenizer.eos_id, *second], tokenizer)
    assert found.text == f"one text{BETWEEN}another"


def test_n_grams_of_a_long_split_are_of_blocks_all_over_it(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_split(corpus, "train")
    monkeypatch.setattr(ngrams, "MOST_TOKENS", 10_000)
    judge = ngram_judge(train, 1024, start=None)
    assert (judge.tokens, judge.of) == (10_000, train.num_tokens)
    for first in (0, train.num_tokens - 100):
        own = Text(ids=train.tokens(first, first + 100).tolist(), text="")
        assert judge.copied([own]) == 1.0
    assert judge.copied([Text(ids=[1, 2], text="")]) is None
    text = [Text(ids=train.tokens(500, 540).tolist(), text="")]
    after = ngram_judge(train, 1024, start=2).nats(text)
    assert after[0, 1] == judge.nats(text)[0, 1] == 40


def test_a_pretrained_model_judges_by_its_own_tokens(pretrained: Path) -> None:
    judge = pretrained_judge(pretrained, CPU, "of a run")
    text = "abc hgf ab"
    ids = judge.tokenizer.encode(text)
    assert len(ids) == len(text)
    nats = 0.0
    for piece in (ids[:7], ids[7:]):
        for place, token in enumerate(piece):
            read = torch.tensor([[0, *piece[:place]]])
            with torch.no_grad():
                nats -= float(judge.model(read).logits[0, -1].log_softmax(-1)[token])
    found = judge.nats([Text(ids=[], text=text), Text(ids=[1], text="")])
    assert found[0] == pytest.approx([nats, len(text)], rel=1e-5)
    assert found[1].tolist() == [0, 0]
    assert abs(nats / len(text) - math.log(12)) > 0.1
    assert judge.facts["judge_first_token"] == "after BOS"
    assert "compare nats per byte" in judge.facts["judge_tokenizer"]


def test_without_bos_the_first_token_is_given(pretrained: Path) -> None:
    judge = pretrained_judge(pretrained, CPU, "of a run")
    judge.tokenizer.bos_token = None
    found = judge.nats([Text(ids=[], text="abcdefgha"), Text(ids=[], text="a")])
    assert found[:, 1].tolist() == [7, 0]  # eight, of which seven count, and one alone
    assert judge.facts["judge_first_token"] == "given"


def test_any_judge_is_taken_by_the_command(
    runs: dict[str, Path], pretrained: Path, said: Any
) -> None:
    words = (
        runs["masked"],
        "--task",
        "samples",
        "--num",
        3,
        "--length",
        16,
        "--sampler",
        "steps=2",
    )
    for judge, told in ((runs["exact"], "the run's"), (pretrained, "its own")):
        found = json.loads(said(*words, "--judge", judge).out)
        assert told in found["judge_tokenizer"]
        assert "copied" not in found["rows"][0]
        assert found["rows"][0]["perplexity_ci95"] is None  # of three texts


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sweep", "stps=4"], "--sampler: stps: unknown key; did you mean 'steps'?"),
        (["--sweep", "steps=4,0"], "steps must be at least 1"),
        (["--judge", "nowhere"], "--judge nowhere: no model there; name ngram, a run"),
        (["--judge", "MASKED"], "has no exact likelihood"),
        (["--judge", "EMPTY"], "no causal language model to load"),
        (["--split", "nothing"], "has no split 'nothing'"),
        (["--length", "1000000"], "that no sample can fill"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    runs: dict[str, Path], said: Any, tmp_path: Path, words: list[str], told: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    places = {"MASKED": str(runs["masked"]), "EMPTY": str(tmp_path)}
    call = (runs["masked"], "--task", "samples", *(places.get(word, word) for word in words))
    found = said(*call)
    assert found.status == 2
    assert told in found.err
    assert found.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num", "0"], "0 is not at least 1"),
        (["--sweep", "steps"], "write KEY=VALUE,VALUE,... instead of 'steps'"),
        (["--sweep", "steps=4,"], "write KEY=VALUE,VALUE,..."),
    ],
)
def test_words_that_are_none_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["run", "--task", "samples", *words])
    assert told in capsys.readouterr().err


def test_a_run_without_checkpoints_is_an_error(said: Any, tmp_path: Path) -> None:
    found = said(tmp_path, "--task", "samples")
    assert found.status == 2
    assert "neither a checkpoint nor a run with one" in found.err
