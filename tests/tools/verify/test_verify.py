"""`python -m tools.verify`: what it compares of layouts, and what the command says."""

import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model import draws
from model.verification import oracles
from model.verification.check import Check, Comparison, Verdict
from pretrain.launch.pool import Pool, RankError
from pretrain.trial import OBJECTIVES, run_config
from tools.verify import __main__ as verify
from tools.verify import invariance, layouts, table
from tools.verify.cases import CASES, MOST_RANKS
from tools.verify.invariance import Invariance
from tools.verify.layouts import Outcome
from tools.verify.reference_loop import PlainLoop

Patch = pytest.MonkeyPatch


# -- the comparison of layouts, of one real run that is then changed --------------------------


@pytest.fixture(scope="module")
def outcome(pool: Pool) -> Outcome:
    (found,) = pool.run(1, layouts.run, run_config("mdlm"), 2)
    return found


class Replay:
    """A pool whose runs are all the same, but for the ranks after the reference's."""

    size = 2

    def __init__(self, one: Outcome, *ranks: Outcome) -> None:
        self.one, self.ranks = one, list(ranks)

    def run(self, size: int, *_: Any) -> list[Outcome]:
        return [self.one] if size == 1 else self.ranks


def breaks_of(one: Outcome, *ranks: Outcome, name: str = "data 2") -> list[str]:
    pool: Any = Replay(one, *ranks)
    found = Invariance(pool=pool, steps=2, device=torch.device("cpu")).checks()
    checks = {check.name: check for check in found}
    return [one.what for one in checks[f"mdlm: {name}"].compare() if not one.holds]


def changed(outcome: Outcome, **changes: Any) -> Outcome:
    return dataclasses.replace(outcome, **changes)


def test_equal_outcomes_hold(outcome: Outcome) -> None:
    assert breaks_of(outcome, outcome, outcome) == []
    assert breaks_of(outcome, name="1 rank") == []


def nudged(values: list[float], factor: float) -> list[float]:
    return [*values[:-1], values[-1] * factor]


CHANGES: list[tuple[str, Callable[[Outcome], dict[str, Any]]]] = [
    ("loss", lambda o: {"losses": nudged(o.losses, 1 + 3e-5)}),
    ("loss", lambda o: {"losses": nudged(o.losses, math.nan)}),
    ("gradient norm", lambda o: {"grad_norms": nudged(o.grad_norms, 1 + 3e-4)}),
    (
        "first gradient norm",
        lambda o: {"grad_norms": [o.grad_norms[0] * (1 + 3e-6), *o.grad_norms[1:]]},
    ),
    (
        "initial weights",
        lambda o: {"initial": [(where, value.nextafter(value + 1)) for where, value in o.initial]},
    ),
    ("noise", lambda o: {"noise": {**o.noise, 3: "another"}}),
    ("noise", lambda o: {"noise": {at: one for at, one in o.noise.items() if at != 3}}),
    ("held-out nats", lambda o: {"document_nats": nudged(o.document_nats, 1 + 3e-5)}),
    ("texts", lambda o: {"samples": [[7, *o.samples[0][1:]], *o.samples[1:]]}),
    ("drawn ids", lambda o: {"drawn": [*o.drawn[:-1], (o.drawn[-1] + 1) % 90]}),
]


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_what_a_layout_changes_is_found(
    outcome: Outcome, what: str, change: Callable[[Outcome], dict[str, Any]]
) -> None:
    other = changed(outcome, **change(outcome))
    assert what in breaks_of(outcome, other, other)


def test_a_rank_that_reports_other_numbers_is_found(outcome: Outcome) -> None:
    for name in ("losses", "grad_norms", "document_nats"):
        other = changed(outcome, **{name: nudged(getattr(outcome, name), 1 + 1e-9)})
        assert breaks_of(outcome, outcome, other) == ["numbers of all ranks"]


def test_a_draw_may_differ_where_two_candidates_tie(outcome: Outcome, monkeypatch: Patch) -> None:
    other = changed(outcome, drawn=[*outcome.drawn[:-1], (outcome.drawn[-1] + 1) % 90])
    monkeypatch.setattr(invariance, "TIE", 1e9)
    assert breaks_of(outcome, other, other) == []


def test_a_curve_in_bf16_that_strays_is_found(outcome: Outcome) -> None:
    for factor, broken in ((1.01, []), (1.03, ["loss of one rank in bf16"])):
        other = changed(outcome, losses=nudged(outcome.losses, factor))
        assert breaks_of(outcome, other, other, name=invariance.BF16) == broken


def test_every_layout_is_one_that_runs_and_is_named_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        layout = run_config("mdlm", parallel=case.parallel).parallel
        assert case.ranks % (layout.tensor * layout.pipeline) == 0
    assert invariance.left_out(MOST_RANKS) == []
    assert "data 4" in invariance.left_out(3)
    assert invariance.BF16 in invariance.left_out(1)


# -- the command -------------------------------------------------------------------------------


def test_one_rank_and_two_steps(capsys, tmp_path) -> None:
    file = tmp_path / "verify.json"
    assert verify.main(["--ranks", "1", "--steps", "2", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    known = [check.name for check in oracles.checks(torch.device("cpu"))]
    checks = [*known, "engines"]
    for objective in OBJECTIVES.names():
        names = ["1 rank", "4 micro-batches"]
        names += ["recompute"] if objective == invariance.of_engine() else []
        checks += [f"{objective}: {name}" for name in names]
    rows = [line for line in out.splitlines() if line.startswith("✓")]
    assert [row[2:46].strip() for row in rows] == checks
    assert f"all {len(checks)} checks hold" in out
    assert "not checked, since it takes more than --ranks 1: data 2; " in out
    record = json.loads(file.read_text())
    assert [check["name"] for check in record["checks"]] == checks
    assert all(check["holds"] for check in record["checks"])
    assert record["facts"]["torch"] == torch.__version__
    losses = record["checks"][-2]["comparisons"][0]
    assert losses["what"] == "loss"
    assert losses["deviation"] < losses["allowed"] == 1e-5


def test_the_first_break_ends_it_with_the_figures(monkeypatch: Patch, capsys) -> None:
    monkeypatch.setattr(draws, "_ROUNDS", 9)
    assert verify.main(["--only", "oracles"]) == 1
    out = capsys.readouterr().out
    assert "✗ draws: Philox4x32-10" in out
    assert "draws: stratified times" not in out
    report = out[out.index("BROKEN: draws: Philox4x32-10") :]
    assert "12 differ" in report
    assert "in place of 0x6627e8d5" in report
    assert "python -m tools.verify --ranks 4 --steps 8" in report
    for name in table.PACKAGES:
        assert name in report
    assert "hold" not in report


def test_a_layout_that_deviates_ends_it(monkeypatch: Patch, capsys) -> None:
    step = PlainLoop.step

    def other_step(loop: PlainLoop) -> None:
        step(loop)
        loop.losses[-1] *= 1.001

    monkeypatch.setattr(PlainLoop, "step", other_step)
    assert verify.main(["--only", "layouts", "--ranks", "1", "--steps", "2"]) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("✗") and ": 1 rank" in line for line in out.splitlines())
    assert "4 micro-batches" not in out
    assert "✗ loss: 1.0e-03, allowed 1e-05" in out
    assert "✓ initial weights: 0" in out
    assert "      found " in out


def test_engines_that_cannot_be_imported_are_a_break(monkeypatch: Patch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tools.verify.invariance", None)
    assert verify.main(["--only", "layouts"]) == 1
    out = capsys.readouterr().out
    assert "✗ engines" in out
    assert "BROKEN: engines" in out
    assert "1 rank" not in out


def test_an_objective_without_an_oracle_is_a_break(monkeypatch: Patch, capsys) -> None:
    monkeypatch.setattr(oracles, "OBJECTIVES", SimpleNamespace(names=lambda: ["mdlm", "other"]))
    assert verify.main(["--only", "oracles"]) == 1
    out = capsys.readouterr().out
    assert "✗ other" in out
    assert "no oracle: write model/verification/oracles/other.py" in out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RankError("rank 1 of 2 failed:\nValueError: a reason"), "rank 1 of 2 failed:"),
        (ValueError("a reason"), "Traceback"),
    ],
)
def test_an_error_is_a_break(monkeypatch: Patch, capsys, error: Exception, said: str) -> None:
    def compare() -> list[Comparison]:
        raise error

    def checks(device: torch.device) -> Iterator[Check]:
        yield Check(name="first", compare=compare)
        yield Check(name="never", compare=compare)

    monkeypatch.setattr(oracles, "checks", checks)
    assert verify.main(["--only", "oracles"]) == 1
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("✗ first"))
    assert row.endswith("ValueError: a reason")
    assert said in out
    assert "never" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "nowhere/at/all.json"], "its directory does not exist"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, capsys) -> None:
    assert verify.main(words) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize("words", [["--only", "something"], ["--ranks", "two"], ["extra"]])
def test_words_that_cannot_be_read_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        verify.main(words)
    assert ended.value.code == 2


def test_there_are_as_many_ranks_as_gpus_at_most(monkeypatch: Patch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert verify.main(["--ranks", "3"]) == 2
    assert "--ranks 3 is more than the 2 GPUs" in capsys.readouterr().err
    assert verify.num_ranks(None) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert (verify.num_ranks(None), verify.num_ranks(8)) == (4, 8)


def test_the_worst_comparison_is_the_one_nearest_its_bound() -> None:
    near = Comparison(what="near", deviation=9e-6, allowed=1e-5)
    far = Comparison(what="far", deviation=1e-5, allowed=1e-2)
    equal = Comparison(what="equal", deviation=0)
    unequal = Comparison(what="unequal", deviation=2)
    unknown = Comparison(what="unknown", deviation=math.nan, allowed=1.0)
    assert Verdict(name="x", seconds=0, comparisons=(equal, far, near)).worst is near
    for bad in (unequal, unknown):
        verdict = Verdict(name="x", seconds=0, comparisons=(near, bad, equal))
        assert verdict.worst is bad
        assert not verdict.holds
    assert not Verdict(name="x", seconds=0).holds


def test_a_deviation_of_nan_is_no_small_one() -> None:
    assert math.isnan(layouts.deviation([1.0, math.nan, 1.0], [1.0, 1.0, 1.0]))
    assert layouts.deviation([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)


def test_words_stand_for_ticks_where_the_terminal_has_none(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert [table.mark(True), table.mark(False)] == ["ok", "NO"]
