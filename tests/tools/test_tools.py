"""The commands around a run, on one tiny run made by the demo itself."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.shards import open_split
from tools.demo import __main__ as demo
from tools.evaluate import __main__ as evaluate
from tools.report import __main__ as report
from tools.sample import __main__ as sample


def small_demo(root: Path, demo_dir: Path, path: Path) -> list[str]:
    """The words of a demo of 20 steps on two ranks."""
    return [
        str(root / "configs" / "demo.yaml"),
        f"run_dir={path}",
        f"data.demo_dir={demo_dir}",
        "steps=20",
        "eval.every=10",
        "wandb.mode=disabled",
        "model.width=64",
        "model.num_layers=2",
        "model.num_heads=2",
    ]


@pytest.fixture(scope="module")
def run(demo_dir: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "run"
    assert demo.main(small_demo(root, demo_dir, path)) == 0
    return path


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_the_demo_sums_up_what_it_made(run: Path) -> None:
    got = summary(run)
    for key in (
        "nelbo", "nelbo_ci95", "unigram", "ratio", "bits_per_byte", "tokens_seen",
        "seconds_training", "seconds_total", "samples",
    ):  # fmt: skip
        assert key in got, key
    assert got["tokens_seen"] == 20 * 16 * 128
    assert got["nelbo_ci95"][0] < got["nelbo"] < got["nelbo_ci95"][1]
    assert got["ratio"] == pytest.approx(got["nelbo"] / got["unigram"])
    assert got["seconds_training"] < got["seconds_total"]
    assert len(got["samples"]) == 4
    assert {p.name for p in (run / "samples").iterdir()} == {"free.txt", "infilled.txt"}


def test_the_pictures_are_pictures(run: Path) -> None:
    for name in ("loss.png", "levels.png"):
        data = (run / "plots" / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000


def test_the_demo_says_that_it_is_done(run: Path, root: Path, capsys) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    words = [str(root / "configs" / "demo.yaml"), f"run_dir={run}", "steps=20"]
    assert demo.main(words) == 0
    assert "is done already" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_demo_goes_on(run: Path, root: Path, demo_dir: Path, tmp_path: Path) -> None:
    words = small_demo(root, demo_dir, tmp_path / "parts")
    assert demo.main([*words, "stop_after=7"]) == 0
    assert not (tmp_path / "parts" / "summary.json").exists()
    assert demo.main(words) == 0
    assert summary(tmp_path / "parts")["nelbo"] == summary(run)["nelbo"]
    assert summary(tmp_path / "parts")["samples"] == summary(run)["samples"]


def test_evaluate_prints_json_and_does_not_depend_on_the_batch(
    run: Path, corpus: Path, capsys
) -> None:
    got = []
    for batch in ("8", "50"):
        assert evaluate.main([str(run), "--samples", "2", "--batch", batch]) == 0
        got.append(json.loads(capsys.readouterr().out))
    assert got[0]["nelbo"] == pytest.approx(got[1]["nelbo"], rel=1e-6)
    assert got[0]["tokens"] == open_split(corpus, "valid").num_tokens
    assert got[0]["bound_on"] == "-log p(texts, their ends included)"
    assert (got[0]["length_given"], got[0]["padding_counted"]) == (False, 0)
    assert got[0]["eos_counted"] == open_split(corpus, "valid").num_documents
    assert f"over {got[0]['documents']} documents" in got[0]["interval"]
    assert (got[0]["weights"], got[0]["split"], got[0]["step"]) == ("ema", "valid", 20)


def test_the_unigram_is_the_add_one_model_of_the_training_split(run: Path, corpus: Path) -> None:
    train, valid = open_split(corpus, "train"), open_split(corpus, "valid")
    total = train.num_tokens + 1024
    counts = torch.bincount(torch.from_numpy(train.tokens(0, train.num_tokens)), minlength=1024)
    tokens = torch.from_numpy(valid.tokens(0, valid.num_tokens))
    expected = -((counts[tokens] + 1).double() / total).log().mean()
    assert summary(run)["unigram"] == pytest.approx(float(expected), rel=1e-9)


def test_bits_per_byte_is_the_bound_over_the_bytes_of_the_text(run: Path, corpus: Path) -> None:
    valid = open_split(corpus, "valid")
    got = summary(run)
    nats = got["nelbo"] * valid.num_tokens
    assert got["bits_per_byte"] == pytest.approx(nats / math.log(2) / valid.manifest.bytes)


def test_samples_depend_on_the_seed_and_not_on_the_batch(run: Path, capsys) -> None:
    def texts(*options: str) -> list[str]:
        base = [str(run), "--json", "--num", "3", "--length", "40", "--sampler", "steps=8"]
        assert sample.main([*base, *options]) == 0
        return json.loads(capsys.readouterr().out)["texts"]

    first = texts()
    assert first == texts("--batch", "1")
    assert first != texts("--seed", "1")
    assert len(set(first)) == 3


def test_a_prompt_stays_as_it_is(run: Path, capsys) -> None:
    words = ["--prompt", "if ___{6}: return ___", "--length", "40", "--num", "2", "--json"]
    assert sample.main([str(run), *words]) == 0
    got = json.loads(capsys.readouterr().out)
    for text in got["texts"]:
        assert text.startswith("if ")
        assert ": return " in text
    assert all(0 < n <= 64 for n in got["evaluations"])


@pytest.mark.slow
def test_several_ranks_evaluate_and_sample_like_one(run: Path) -> None:
    def output(tool: str, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", f"tools.{tool}", str(run), *words]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    layout = ("parallel.tensor=2", "parallel.pipeline=2")
    options = ("--json", "--num", "3", "--length", "40", "--sampler", "steps=8", "--batch", "1")
    one = output("sample", *options)
    assert output("sample", *options, *layout) == one
    assert output("sample", *options, "parallel.data=2") == one
    nelbo = output("evaluate", "--samples", "1")["nelbo"]
    assert output("evaluate", "--samples", "1", *layout)["nelbo"] == pytest.approx(nelbo, rel=1e-6)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (sample, ["nowhere"], "neither a checkpoint nor a run with one"),
        (evaluate, ["nowhere"], "neither a checkpoint nor a run with one"),
        (report, ["nowhere"], "has no metrics yet"),
        (sample, ["RUN", "--length", "5", "--prompt", "much too long a text"], "--length"),
        (evaluate, ["RUN", "--split", "test"], "test"),
        (evaluate, ["RUN", "parallel.tensor=3"], "does not divide by parallel.tensor 3"),
        (sample, ["RUN", "seed=3"], "only parallel.* can be set here, not seed"),
    ],
)
def test_wrong_words_are_one_error(run: Path, capsys, command, words, message: str) -> None:
    assert command.main([str(run) if word == "RUN" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
