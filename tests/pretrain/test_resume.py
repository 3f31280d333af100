"""Stopping and going on: bit by bit on the same layout, to rounding under any other."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from small_runs import GENIE, curve

from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from pretrain.launch.pool import RankError

EXACT = ("optim.eps=1e-6", "eval.every=0", "checkpoint.every=1000", "steps=80")


def training(run: Path, key: str) -> list[float]:
    return [row[key] for row in curve(run) if key in row]


@pytest.mark.parametrize(
    "settings",
    [
        "precision=fp32 model.dropout=0.1 parallel.data=2",
        pytest.param(
            "precision=bf16 parallel.data=2 parallel.zero_stage=3", marks=pytest.mark.slow
        ),
        pytest.param(
            "precision=fp32 parallel.data=2 parallel.tensor=2 parallel.zero_stage=2",
            marks=pytest.mark.slow,
        ),
        "precision=fp32 parallel.data=2 parallel.pipeline=2 model.tied_head=true",
        pytest.param(f"precision=bf16 parallel.data=2 {GENIE}", marks=pytest.mark.slow),
        pytest.param(
            f"precision=bf16 parallel.tensor=2 parallel.pipeline=2 {GENIE}", marks=pytest.mark.slow
        ),
    ],
)
def test_on_the_same_layout_nothing_changes(train, tmp_path: Path, settings: str) -> None:
    words = (*settings.split(), "optim.weight_decay=0.1", "checkpoint.every=3")
    train(*words, run="whole")
    train(*words, "stop_after=7", run="parts")
    status = json.loads((tmp_path / "parts" / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("stopped", "stop_after")
    train(*words, "stop_after=12", "checkpoint.asynchronous=false", run="parts")
    train(*words, run="parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert json.loads((tmp_path / "parts" / "status.json").read_text())["attempt"] == 3
    ends = [load_denoiser(tmp_path / name, "ema").denoiser for name in ("whole", "parts")]
    for one, other in zip(*(end.parameters() for end in ends), strict=True):
        assert torch.equal(one, other)


ONE = ("parallel.micro_batch=8",)

UNDER_EACH = 4
"""Steps under each layout of a chain."""
LONGEST = "one, tensor x pipeline, ZeRO 3, tensor x ZeRO 2"
CHAINS = {
    LONGEST: [
        ONE,
        ("parallel.tensor=2", "parallel.pipeline=2", "parallel.micro_batch=4"),
        ("parallel.data=4", "parallel.zero_stage=3"),
        ("parallel.tensor=2", "parallel.data=2", "parallel.zero_stage=2"),
    ],
    "pipeline x data, one": [("parallel.pipeline=2", "parallel.data=2"), ONE],
    "data, more data and accumulation": [
        ("parallel.data=2",),
        ("parallel.data=4", "parallel.micro_batch=1"),
    ],
}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize(
    ("chain", "precision"),
    [
        pytest.param(chain, precision, marks=[pytest.mark.slow] if len(CHAINS[chain]) > 2 else [])
        for chain, precision in [*((chain, "fp32") for chain in CHAINS), (LONGEST, "bf16")]
    ],
)
def test_under_other_layouts_the_curve_goes_on(
    train, tmp_path: Path, references: Path, precision: str, chain: str
) -> None:
    """Some steps under each; the truth is one rank, uninterrupted."""
    whole = references / precision
    words = (*EXACT, f"precision={precision}")
    if not whole.exists():
        longest = max(map(len, CHAINS.values()))
        train(*words, *ONE, f"stop_after={UNDER_EACH * longest}", f"run_dir={whole}")
    for number, layout in enumerate(CHAINS[chain], 1):
        train(*words, *layout, f"stop_after={UNDER_EACH * number}")
    run = tmp_path / "run"
    steps = UNDER_EACH * len(CHAINS[chain])
    assert training(run, "step") == list(range(1, steps + 1))
    assert training(run, "tokens_seen") == training(whole, "tokens_seen")[:steps]
    loss, norm = (1e-5, 1e-4) if precision == "fp32" else (0.02, 0.02)
    assert training(run, "loss") == pytest.approx(training(whole, "loss")[:steps], rel=loss)
    assert training(run, "grad_norm") == pytest.approx(
        training(whole, "grad_norm")[:steps], rel=norm
    )


@pytest.mark.slow
def test_what_an_objective_has_learnt_goes_on_under_other_layouts(train, tmp_path: Path) -> None:
    words = (*EXACT, *GENIE.split(), "precision=fp32")
    train(*words, *ONE, "stop_after=40", run="whole")
    layouts = CHAINS[LONGEST]
    for number, layout in enumerate(layouts, 1):
        train(*words, *layout, f"stop_after={10 * number}")
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert training(run, "loss") == pytest.approx(training(whole, "loss"), rel=1e-5)
    assert training(run, "grad_norm") == pytest.approx(training(whole, "grad_norm"), rel=1e-4)
    newest = [Reader(store.newest(path / "checkpoints")[0]) for path in (run, whole)]
    objective_state, truth = (reader.objective_state() for reader in newest)
    assert torch.equal(objective_state["seen"], truth["seen"])
    assert int(truth["seen"].min()) >= 10  # times have followed the losses for a while
    torch.testing.assert_close(objective_state["losses"], truth["losses"], rtol=1e-5, atol=0)


def test_a_run_may_change_its_precision(train, tmp_path: Path) -> None:
    train("precision=bf16", "stop_after=8")
    masters = dict(Reader(store.newest(tmp_path / "run" / "checkpoints")[0]).whole("master"))
    train("precision=fp32", "optim.lr=3e-3", "stop_after=9", "checkpoint.keep_last=9")
    assert len(training(tmp_path / "run", "loss")) == 9
    first = Reader(store.path_of(tmp_path / "run" / "checkpoints", 8))
    assert all(torch.equal(value, masters[name]) for name, value in first.whole("master"))


def test_retention_and_what_a_checkpoint_says(train, tmp_path: Path) -> None:
    words = ("eval.every=2", "eval.windows=2", "checkpoint.every=2", "checkpoint.keep_last=1")
    train(*words, "checkpoint.keep_best=1", "checkpoint.keep_every=8", "parallel.data=2")
    directory = tmp_path / "run" / "checkpoints"
    rows = [row for row in curve(tmp_path / "run") if "val/nelbo" in row]
    best = min(rows, key=lambda row: row["val/nelbo"])["step"]
    steps = {int(path.name[5:]) for path in store.committed(directory)}
    assert steps == {8, 16, 20, best}
    state = Reader(store.path_of(directory, 20)).state
    assert state["layout"] == {"data": 2, "tensor": 1, "pipeline": 1, "zero_stage": 1}
    assert state["score"] == rows[-1]["val/nelbo"]
    assert state["code"]["packages"]["torch"] == torch.__version__
    assert not list(directory.glob(".*"))


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_flipped_bit_is_noticed_and_the_one_before_is_taken(train, tmp_path: Path) -> None:
    words = ("parallel.data=2", "checkpoint.every=5", "eval.every=0")
    train(*words)
    run = tmp_path / "run"
    whole = curve(run)
    flip_a_bit(store.path_of(run / "checkpoints", 20) / "rank-00001.safetensors")
    train(*words)
    assert curve(run) == whole
    kept = [path.name for path in (run / "checkpoints").iterdir()]
    assert any(name.startswith(".replaced-step-00000020") for name in kept)


def test_damage_anywhere_is_passed_over_and_what_is_left_goes_on(train, tmp_path: Path) -> None:
    words = ("parallel.data=2", "checkpoint.every=4", "checkpoint.keep_last=9", "eval.every=0")
    train(*words)
    run = tmp_path / "run"
    whole = curve(run)
    at = partial(store.path_of, run / "checkpoints")
    flip_a_bit(at(20) / "state.json")
    (at(16) / store.MANIFEST).write_text("[]")
    (at(12) / "index.json").unlink()
    (at(12) / "index.json").mkdir()
    for name in (".DS_Store", ".attempt-old"):
        (run / "checkpoints" / name).touch()
        (run / "attempts" / name).touch()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([*lines[:3], b"\n", *lines[3:]]))
    train(*words)
    assert curve(run) == whole
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    state = Reader(at(20)).state
    assert (state["metric_rows"], len(state["tokenizer_sha256"])) == (20, 64)
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert {".DS_Store", ".attempt-old"} < kept
    assert len([name for name in kept if name.startswith(".replaced-")]) == 3


@pytest.mark.parametrize(
    "settings",
    [
        "optim.lr=1e38 optim.clip=0",
        "optim.lr=1e38 parallel.data=2 parallel.zero_stage=3",  # they are finite, the loss is not
        pytest.param(
            "optim.lr=1e38 precision=bf16 parallel.tensor=2 parallel.pipeline=2",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_that_are_not_finite_end_a_run_and_displace_nothing(
    train, tmp_path: Path, settings: str
) -> None:
    """The rate grows beyond all bounds after three good steps, which are kept."""
    words = ("checkpoint.every=3", "eval.every=0", "steps=6", *settings.split())
    _rate, *others = words[3:]
    train(*words[:3], *others, "stop_after=3")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("lr: 0.003", "lr: 1.0e+38"))
    message = r"NonFiniteError: the (weights|loss) of step 6 (are|is) not finite"
    with pytest.raises(RankError, match=message):
        train(*words)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "fork_from=" in status["reason"]
    assert [p.name for p in store.committed(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
