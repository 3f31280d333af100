import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.exit_codes import STOPPED
from configs.load import load
from data_pipeline.shards import open_split
from pretrain.run.metrics import read_rows
from tools.compare import __main__ as command
from tools.compare import baselines as counted
from tools.compare import evaluate as scoring
from tools.compare import train as training
from tools.compare.config import BaselinesConfig, CompareConfig, EvaluationConfig
from tools.compare.members import members
from tools.evaluate import __main__ as evaluate
from tools.evaluate.kneser_ney import fit

TEXTS = {"num": 10, "steps": [2, 3], "samplers": {"causal": {"temperature": 0.5}}}


@pytest.fixture(scope="module")
def done(file: Callable[..., Path]) -> SimpleNamespace:
    """A comparison that was stopped within its first run, and then went on to its end."""
    path = file(samples=TEXTS, prepare=["make the corpus"])
    assert command.main([str(path), "base.stop_after=2"]) == 0
    out = path.parent / "out"
    between = [sorted(one.name for one in out.iterdir()), len(read_rows(curve(out, "diffusion")))]
    assert command.main([str(path)]) == 0
    return SimpleNamespace(
        file=path,
        out=out,
        between=between,
        found=json.loads((out / "table.json").read_text()),
        page=(out / "table.md").read_text(),
    )


def curve(out: Path, name: str) -> Path:
    return out / f"{name}-seed0" / "metrics.jsonl"


def starts(out: Path, name: str) -> int:
    return len(list((out / f"{name}-seed0" / "attempts").iterdir()))


def test_a_stopped_comparison_goes_on_where_it_was(done: SimpleNamespace) -> None:
    assert done.between == [["diffusion-seed0", "diffusion-seed0.yaml"], 2]
    for name in ("diffusion", "causal"):
        rows = [row for row in read_rows(curve(done.out, name)) if "train/loss" in row]
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert (starts(done.out, "diffusion"), starts(done.out, "causal")) == (2, 1)


def test_the_held_out_numbers_are_those_of_the_evaluator(
    done: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in done.found["runs"]:
        assert evaluate.main([run["directory"], "--samples", "4"]) == 0
        own = json.loads(capsys.readouterr().out)
        assert {key: run["held_out"][key] for key in own if key != "target_ci"} == {
            key: value for key, value in own.items() if key != "target_ci"
        }
        low, high = own["nelbo_ci95"]
        cells = f"| {run['name']} | {own['nelbo']:.3f} ({low:.3f} to {high:.3f}) | "
        assert cells in done.page
        unigram = done.found["baselines"][0]
        assert unigram["nelbo"] == pytest.approx(own["unigram"], rel=1e-12)
        assert unigram["tokens"] == own["tokens"]
        assert unigram["bits_per_byte"] / unigram["nelbo"] == pytest.approx(
            own["bits_per_byte"] / own["nelbo"], rel=1e-12
        )


def test_the_table_tells_what_was_trained_and_how(done: SimpleNamespace) -> None:
    one, two = done.found["runs"]
    assert one["parameters"] == two["parameters"] > 0
    assert one["tokens"] == two["tokens"] == 4 * 4 * 24
    assert one["tokens_per_second"] > 0
    assert done.found["commands"] == [
        "make the corpus", f"python -m tools.compare {done.file}",
    ]  # fmt: skip
    assert f"$ python -m tools.compare {done.file}\n" in done.page
    assert f"machine: {one['machine']['cpu']}" in done.page
    assert "torch" in done.page
    assert "rows cannot be compared" not in done.page
    assert "| upper bound on -log p |" in done.page
    assert done.page.count("| exact |") == 3
    assert (done.out / "comparison.png").stat().st_size > 10_000


def test_samples_of_each_number_of_steps_stand_beside_held_out_text(done: SimpleNamespace) -> None:
    one, two = (run["samples"] for run in done.found["runs"])
    assert [row["evaluations"] for row in one["rows"]] == [2, 3]
    assert [row["evaluations"] for row in two["rows"]] == [22], "its sampler has no steps"
    assert two["rows"][0]["settings"]["temperature"] == 0.5
    assert one["reference"] == two["reference"]
    lines = [line for line in done.page.splitlines() if line.startswith("| ")]
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines]
    assert names[-4:-1] == [
        "diffusion, ancestral steps=2", "diffusion, ancestral steps=3", "causal, left_to_right",
    ]  # fmt: skip
    assert names[-1] == "held-out text"
    assert f" {one['reference']['perplexity']:.3f}"[:5] in lines[-1]


def test_a_second_call_makes_the_table_only(
    done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("nothing is to be done again")

    monkeypatch.setattr(training, "pretrain", never)
    monkeypatch.setattr(scoring, "load_denoiser", never)
    monkeypatch.setattr(counted, "ngram_judge", never)
    (done.out / "table.md").unlink()
    assert command.main([str(done.file)]) == 0
    assert (done.out / "table.md").read_text() == done.page
    monkeypatch.setattr(scoring, "load_denoiser", lambda *words: pytest.fail("as it should be"))
    with pytest.raises(pytest.fail.Exception, match="as it should be"):
        command.main([str(done.file), "evaluation.samples=2"])


def test_a_run_that_has_changed_is_refused(
    done: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, said in {
        "base.steps=5": "steps: was 4, is 5",
        "base.precision=bf16": "precision: was fp32, is bf16",
        "base.optim.lr=0.5": "optim.lr: was 0.003, is 0.5",
        "runs.causal.model.width=32": "model.width: was 16, is 32",
    }.items():
        assert command.main([str(done.file), word]) == 2
        assert said in capsys.readouterr().err


def test_the_plan_lists_the_runs(
    done: SimpleNamespace, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(done.file), "--dry-run"]) == 0
    (_, first, second, left, _) = capsys.readouterr().out.splitlines()
    parameters = f"{done.found['runs'][0]['parameters']:,}"
    assert first.split() == ["diffusion", "0", parameters, "1", "4", "384", "100%"]
    assert second.split()[-1] == "100%"
    assert left == "training left: about 0:00:00"
    path = file()
    assert command.main([str(path), "--dry-run", "seeds=[3,4]"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines()[1:5]] == ["3", "4", "3", "4"]
    assert "training left: known once the first run has begun" in printed
    assert not (path.parent / "out").exists()


# -- stopping -------------------------------------------------------------------------------


def test_the_status_of_a_run_that_stops_is_passed_on(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def ended(words: list[str]) -> int:
        calls.append(words)
        return status

    for number, status in enumerate((STOPPED, 1, 130), 1):
        monkeypatch.setattr(training, "pretrain", ended)
        assert command.main([str(file())]) == status
        assert len(calls) == number, "the second run is not begun"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_evaluation(
    done: SimpleNamespace, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(scoring.Evaluation, "held_out", lambda self: os.kill(os.getpid(), number))
    assert command.main([str(done.file)]) == STOPPED
    assert signal.getsignal(number) is before


# -- baselines ------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["wrap", "pad"])
def test_counted_models_see_what_the_runs_see(
    packing: str, file: Callable[..., Path], letters: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Against the n-gram model itself, on the joined text, or on each document behind an EOS."""
    config = members(load(CompareConfig, [file()], [f"base.data.packing={packing}"]), Path("out"))[
        0
    ].config
    asked = BaselinesConfig(unigram=False, kneser_ney=3)
    train, valid = open_split(letters, "train"), open_split(letters, "valid")
    ids = train.tokens(0, train.num_tokens)
    model = fit([ids], order=3, vocab_size=31)
    text, starts = valid.tokens(0, valid.num_tokens), valid.document_starts()
    eos = [valid.manifest.eos_id]
    pieces = [text] if packing == "wrap" else np.split(text, starts[1:-1])
    nats = [-np.log(model.probabilities(np.concatenate([eos, one]))[1:]) for one in pieces]
    expected = float(np.concatenate(nats).mean())
    for number, block in enumerate((counted.BLOCK, 7)):
        monkeypatch.setattr(counted, "BLOCK", block)
        kept = tmp_path / f"{number}.json"
        (row,) = counted.baselines(asked, EvaluationConfig(), config, kept)
        assert row["nelbo"] == pytest.approx(expected, rel=1e-12)
        assert row["bits_per_character"] == pytest.approx(
            expected / np.log(2) * len(text) / (len(text) - len(starts) + 1), rel=1e-12
        )


def test_the_unigram_is_of_counts_raised_by_one(
    file: Callable[..., Path], letters: Path, tmp_path: Path
) -> None:
    config = members(load(CompareConfig, [file()]), Path("out"))[0].config
    asked = BaselinesConfig(kneser_ney=None)
    (row,) = counted.baselines(asked, EvaluationConfig(), config, tmp_path / "kept.json")
    train, valid = open_split(letters, "train"), open_split(letters, "valid")
    ids = train.tokens(0, train.num_tokens).tolist()
    p = {index: (ids.count(index) + 1) / (len(ids) + 31) for index in range(31)}
    text = valid.tokens(0, valid.num_tokens).tolist()
    assert row["nelbo"] == pytest.approx(-np.mean([np.log(p[index]) for index in text]), rel=1e-12)
