"""Every objective, by its trial, as a user has it: stopped, resumed elsewhere, forked, judged."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pretrain.run.metrics import read_rows
from pretrain.trial import OBJECTIVES, trial
from tools.evaluate import __main__ as evaluate
from tools.sample import __main__ as sample


def words(blocks: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Blocks of a configuration as ``key.sub=value`` words."""
    for key, value in blocks.items():
        if isinstance(value, Mapping):
            yield from words(value, f"{at}{key}.")
        else:
            yield f"{at}{key}={json.dumps(value)}"


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_rows(run / "metrics.jsonl") if "train/loss" in row]


def held_out(run: Path) -> list[dict[str, float]]:
    found = [
        {key: value for key, value in row.items() if key.startswith("val/")}
        for row in read_rows(run / "metrics.jsonl")
    ]
    return [numbers for numbers in found if numbers]


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_a_trial_is_stopped_resumed_on_another_layout_forked_and_judged(
    train, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    own = (
        *words(trial(name)), "steps=4", "checkpoint.every=2", "eval.every=4", "eval.windows=8",
        "optim.eps=1e-6", "global_batch=8",
    )  # fmt: skip
    train(*own, run="whole")
    train(*own, "stop_after=2", run="parts")
    train(*own, "parallel.tensor=2", run="parts")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    (found,) = held_out(parts)
    assert held_out(whole) == [pytest.approx(found, rel=1e-4)]

    fork = ("steps=1", "optim.lr=0", "eval.every=1", f"fork_from={whole}")
    train(*own, *fork, run="fork")
    (forked,) = held_out(tmp_path / "fork")
    score = next(iter(found))
    assert forked[score] == pytest.approx(held_out(whole)[0][score], rel=1e-4)

    capfd.readouterr()
    assert evaluate.main([str(parts), "--samples", "1"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert ("nelbo" in summary) == (score == "val/nelbo")
    given = ["--source", "the source"] if trial(name).get("data", {}).get("source_length") else []
    assert sample.main([str(parts), "--num", "1", "--json", *given]) == 0
    assert capfd.readouterr().out
