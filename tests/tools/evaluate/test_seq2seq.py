"""`tools.sample --source` and `tools.evaluate` on a tiny GENIE, and the demo's table."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.load import load
from model.draws import Draws
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.data import open_corpus
from pretrain.launch.pool import Pool
from pretrain.launch.rank import train_rank
from pretrain.planner.plan import plan
from pretrain.run.directory import RunDirectory
from tools.demo import __main__ as demo
from tools.evaluate import __main__ as evaluate
from tools.evaluate.recovery import recovery
from tools.sample import __main__ as sample

WORDS = (
    "model.name=encoder_decoder",
    "model.num_encoder_layers=1",
    "model.embedding_width=16",
    "objective.name=genie",
    "objective.num_steps=20",
    "data.packing=paragraphs",
    "data.source_length=48",
    "data.sequence_length=16",
    "eval.every=0",
    "steps=30",
)


@pytest.fixture(scope="module")
def run(pool: Pool, demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genie") / "run"
    words = [*WORDS, f"run_dir={path}", f"data.demo_dir={demo_dir}"]
    config = load(RunConfig, [root / "configs" / "tiny.yaml"], words)
    RunDirectory(path).check(config)
    assert set(pool.run(plan(config, None).ranks, train_rank, config, path)) == {0}
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command prints on standard output; its status and errors beside it."""

    def call(main: Any, *words: object) -> SimpleNamespace:
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    lines = [{"source": f"word {n % 3}", "target": f"a word is {n}"} for n in range(6)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def test_a_source_gets_its_target_whatever_the_batch(run: Path, said: Any, pairs: Path) -> None:
    words = (run, "--sampler", "steps=3", "--candidates", 2, "--json", "--source", pairs)
    found = [json.loads(line) for line in said(sample.main, *words).out.splitlines()]
    assert [one["source"] for one in found] == ["word 0", "word 1", "word 2"]
    assert all(len(one["candidates"]) == 2 for one in found)
    assert all(one["output"] in one["candidates"] for one in found)
    assert all(one["evaluations_per_candidate"] == 3 for one in found)
    again = said(sample.main, *words, "--batch", 1).out.splitlines()
    assert [json.loads(line) for line in again] == found
    other = said(sample.main, *words, "--seed", 1).out.splitlines()
    assert [json.loads(line)["output"] for line in other] != [one["output"] for one in found]
    alone = said(
        sample.main, run, "--sampler", "steps=3", "--candidates", 1, "--source", "word 0"
    ).out
    assert alone.startswith("--- word 0\n")


def test_ranks_draw_the_same_targets(run: Path, said: Any, pairs: Path, root: Path) -> None:
    words = (
        run,
        "--sampler",
        "steps=2",
        "--candidates",
        2,
        "--json",
        "--source",
        pairs,
        "--batch",
        2,
    )
    alone = said(sample.main, *words).out
    command = [sys.executable, "-m", "tools.sample", *map(str, words), "parallel.pipeline=2"]
    ranks = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert ranks.stdout == alone


def test_evaluation_says_how_it_was_come_by(
    run: Path, said: Any, pairs: Path, tmp_path: Path
) -> None:
    words = (
        run, "--task", "seq2seq", "--data", pairs, "--train-data", pairs,
        "--sampler", "steps=2", "--candidates", 3, "--must-say", r"word (\d)",
        "--out", tmp_path / "out.jsonl",
    )  # fmt: skip
    found = json.loads(said(evaluate.main, *words).out)
    assert found["chosen_by"] == "mbr"
    assert (found["sources"], found["references"], found["candidates"]) == (3, 6, 3)
    assert (found["evaluations_per_candidate"], found["evaluations_per_text"]) == (2, 6)
    assert found["sacrebleu"].startswith("nrefs:2|")
    assert found["nearest_target"]["bleu"] == pytest.approx(100.0)
    assert found["random_target"]["bleu"] <= 100.0
    assert found["said"]["seen"]["of"] == 3
    assert found["said"]["unseen"]["of"] == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(line["candidates"]) for line in lines] == [3, 3, 3]
    oracle = json.loads(said(evaluate.main, *words, "--choose", "oracle").out)
    assert oracle["chosen_by"] == "oracle (sees the references)"
    assert oracle["rouge1"] >= found["rouge1"]


def test_an_objective_without_a_bound_has_a_held_out_loss(run: Path, said: Any) -> None:
    found = json.loads(said(evaluate.main, run).out)
    assert found["split"] == "valid"
    assert 0 < found["loss"] < 10
    assert "nelbo" not in found
    assert found["bound_on"] is None
    assert found["padding"] == "as in training"
    assert found["documents"] < found["samples"]  # which are spans of the same texts
    if found["documents"] < 10:
        assert found["loss_ci95"] is None
    else:
        assert found["loss_ci95"][0] < found["loss"] < found["loss_ci95"][1]
    assert f"{found['documents']} documents" in found["interval"]
    again = json.loads(said(evaluate.main, run, "--batch", 7).out)
    assert again["loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_the_list_of_samplers_says_which_suit(run: Path, said: Any) -> None:
    for command in (sample, evaluate):
        found = said(command.main, run, "--sampler", "help")
        assert found.status == 0
        assert found.out.count("(suits this model, and is its default)") == 1
        assert found.out.count("(suits this model)") == 1
        assert "its own sampler is ddpm)" in " ".join(found.out.split())


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        (sample, [], "name what to write about with --source"),
        (sample, ["--source", "a", "--choose", "oracle"], "needs references"),
        (sample, ["--source", "a", "--sampler", "steps=21"], "steps must be at most 20"),
        (sample, ["--source", "a", "--sampler", "clamp_below=2"], "clamp_below must lie in"),
        (sample, ["--source", "a", "--sampler", "ancestral"], "its own sampler is ddpm"),
        (sample, ["--source", "a", "--sampler", "ddin", "steps=2"], "did you mean 'ddim'?"),
        (evaluate, ["--task", "seq2seq"], "needs --data FILE"),
        (
            evaluate,
            ["--task", "seq2seq", "--data", "x", "--sampler", "stps=3"],
            "--sampler: stps: unknown key; did you mean 'steps'?",
        ),
        (evaluate, ["--task", "seq2seq", "--data", "x", "--must-say", "a"], "needs --train-data"),
        (evaluate, ["--task", "seq2seq", "--data", "no-such.jsonl"], "no such file"),
        (evaluate, ["--split", "nothing"], "has no split 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Path, said: Any, command: Any, words: list[str], told: str
) -> None:
    found = said(command.main, run, *words)
    assert found.status == 2
    assert told in found.err
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1


def test_recovery_knows_what_needs_no_network(run: Path) -> None:
    """At a level of almost no noise rounding finds every token; at the prior hardly any. The
    mean embedding's error does not depend on the level.
    """
    loaded = load_denoiser(run, "ema")
    draws = Draws(seed=0, split="train", batch=8)
    corpus = open_corpus(loaded.config, draws)
    rows = recovery(loaded, corpus, [0.05, 0.5, 1.0], num=12, batch=5, seed=0)
    assert [row.level for row in rows] == [0.05, 0.5, 1.0]
    assert rows[0].rounded > 0.85
    assert rows[0].rounded > rows[1].rounded > rows[2].rounded
    assert rows[2].rounded < 0.1
    assert rows[0].mean_error == pytest.approx(rows[2].mean_error, rel=1e-5)
    table = loaded.denoiser.embedding.weight.detach()
    assert rows[0].mean_error == pytest.approx(float(table.var()), rel=0.3)
    again = recovery(loaded, corpus, [0.5], num=12, batch=12, seed=0)
    assert again[0].recovered == pytest.approx(rows[1].recovered)
    assert again[0].error == pytest.approx(rows[1].error, rel=1e-5)


@pytest.mark.slow
def test_the_demo_shows_genie(
    demo_dir: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        str(root / "configs" / "genie" / "demo.yaml"),
        f"run_dir={tmp_path / 'run'}",
        f"data.demo_dir={demo_dir}",
        "steps=6",
        "eval.every=0",
        "wandb.mode=disabled",
    ]
    assert demo.main(words) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["level"] for row in summary["levels"]][-1] == 1.0
    assert len(summary["samples"]) == 4
    assert "[[" in summary["samples"][0]
    printed = capsys.readouterr().out
    assert "rounding alone" in printed
    assert "[[" in (tmp_path / "run" / "samples" / "filled.txt").read_text()
    assert (tmp_path / "run" / "plots" / "loss.png").exists()
