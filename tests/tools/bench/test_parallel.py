"""`tools.bench parallel` and `gpu`: what they print, refuse and return."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain.launch.pool import Pool
from pretrain.planner.hardware import GPUS
from pretrain.planner.plan import count_parameters
from tools.bench import gpu, parallel, ranks
from tools.bench.__main__ import main
from tools.bench.parallel import Bench, Shape
from tools.bench.ranks import Timed
from tools.bench.whole_step import plain_step, present_loss, run_config

TINY = Shape(name="tiny", vocab_size=50, width=16, layers=2, heads=2, batch=2, length=8)


class CannedPool:
    """In place of ranks: figures and losses as asked for, at once."""

    def __init__(self, engine: float = 1.0, two: float = 1.0, **losses: float) -> None:
        self.engine, self.two, self.losses = engine, two, losses

    def __enter__(self) -> "CannedPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, size: int, target: Callable[..., Any], *args: Any, timeout_s: float) -> Any:
        loss = self.losses.get(target.__name__, 2.0)
        if target is ranks.against_plain:
            seconds = {"plain": [1.0] * args[2], "engine": [self.engine] * args[2]}
            return [Timed(seconds=seconds, losses={"plain": 2.0, "engine": loss}, threads=2)]
        alone = size == 1 and args[2] == 1
        second = 1.0 if alone else self.two
        return [Timed(seconds={"step": [second]}, losses={"step": loss}, threads=1)] * size


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts canned figures in place of the ranks."""

    def put(**figures: float) -> None:
        monkeypatch.setattr(parallel, "Pool", lambda size: CannedPool(**figures))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return put


def test_the_engine_and_the_plain_loop_are_timed_at_the_same_loss(pool: Pool) -> None:
    rounds: list[None] = []
    bench = Bench(pool, 1, 2, lambda: rounds.append(None))
    for precision in ("fp32", "bf16"):
        row = bench.engine(TINY, precision)
        assert len(row["seconds"]) == len(row["baseline_seconds"]) == 2
        assert min(row["seconds"]) > 0
    assert len(rounds) == 2


@pytest.mark.alone
def test_two_ranks_are_timed_at_the_loss_of_one(pool: Pool) -> None:
    rows = Bench(pool, 1, 1, lambda: None).ranks(TINY, "fp32", ["dp2", "pp2"])
    assert [row["case"] for row in rows] == ["apart", "threads2", "dp2", "pp2"]
    assert [row["threads"] for row in rows] == [1, 2, 1, 1]
    assert rows[0]["of_apart"] == 1
    for row in rows:
        assert len(row["seconds"]) == 1
        assert row["ratio"] == pytest.approx(row["baseline_seconds"][0] / row["seconds"][0])


def test_the_plain_step_trains_and_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(TINY.model, 2, 8, "bf16")
    step, denoiser = plain_step(config, torch.device("cpu"))
    clip, clips = torch.nn.utils.clip_grad_norm_, []
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda *args: clips.append((args[1], clip(*args)))
    )
    begin = present_loss(config, denoiser.ask)
    for _ in range(5):
        step()
    assert denoiser.embedding.weight.dtype == torch.bfloat16
    assert present_loss(config, denoiser.ask) < begin
    bounds, norms = zip(*clips, strict=True)
    assert bounds == (config.optim.clip,) * 5
    assert min(norms) > 0


def test_the_command_prints_a_table_and_writes_json(
    canned: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canned(engine=1.05, two=1.2)
    path = tmp_path / "bench.json"
    assert main(["parallel", "--repeats", "3", "--json", str(path), "--check"]) == 0
    result = json.loads(path.read_text())
    assert set(result) == {"benchmark", "machine", "comparisons"}
    rows = result["comparisons"]
    cases = [(row["case"], row["name"]) for row in rows if row["precision"] == "fp32"]
    assert cases == [("engine", "demo"), ("engine", "larger")] + [
        (case, "demo") for case in ("apart", "threads2", "dp2", "tp2", "pp2")
    ]
    for row in rows:
        assert len(row["seconds"]) == len(row["baseline_seconds"]) == 3
        if row["case"] == "engine":
            assert (row["figure"], row["target"], row["met"]) == ("time", 1.1, True)
            assert row["ratio"] == pytest.approx(1.05)
            assert row["threads"] == 2
        else:
            assert row["figure"] == "speed"
            assert row["ratio"] == pytest.approx(1 / 1.2)
            assert row["tokens_per_second_per_core"] == pytest.approx(16 * 128 / 1.2)
            assert row["met"] is (True if row["case"] == "dp2" else None)
    output = capsys.readouterr().out
    assert "larger" in output
    assert "machine: cpu" in output


@pytest.mark.parametrize(("case", "figure"), [("engine", "engine"), ("dp2", "two")])
def test_a_missed_target_fails_only_under_check(
    canned: Callable[..., None], case: str, figure: str
) -> None:
    canned(**{figure: 1.3})
    assert main(["parallel", "--case", case, "--repeats", "1"]) == 0
    assert main(["parallel", "--case", case, "--repeats", "1", "--check"]) == 1


@pytest.mark.parametrize("wrong", ["against_plain", "together"])
def test_different_losses_are_refused(
    canned: Callable[..., None], capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    canned(**{wrong: 2.001})
    assert main(["parallel", "--precisions", "fp32"]) == 2
    assert "one of the two is wrong" in capsys.readouterr().err


def test_what_needs_another_machine_is_one_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, is_available in (("gpu", False), ("parallel", True)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=is_available: found)
        assert main([command]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1


def test_sizes_are_what_they_are_called() -> None:
    for name, model in gpu.SIZES.items():
        number = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
        assert count_parameters(model) == pytest.approx(number, rel=0.15)


def test_the_gpu_table_has_a_floor_and_a_command_for_each_row() -> None:
    config = run_config(gpu.SIZES["170M"], 32, 1024, "bf16")
    row = gpu.floor(config, GPUS["h200-141g"])
    assert row["tokens"] == 32768
    # Kaplan's 6 N: blocks whole, head at half of the positions; and attention, whole.
    by_hand = 6 * (12 * 12 * 768**2 + 0.5 * 50304 * 768) + 12 * 12 * 768 * 1024
    assert row["flops"] / row["tokens"] == pytest.approx(by_hand, rel=1e-2)
    assert row["flops_seconds"] == pytest.approx(row["flops"] / 989e12)
    assert row["bytes_seconds"] == pytest.approx(row["bytes"] / 4.8e12)
    row |= {"size": "170M", "command": "the command", "mfu": 0.5, "peak_bytes": 2**30}
    lines = gpu.table([row | {"seconds": [2 * row["flops_seconds"]]}]).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert len(cells) == lines[0].strip("|").count("|") + 1
    floors = [f"{1e3 * row[f'{kind}_seconds']:.1f}" for kind in ("flops", "bytes")]
    assert cells[-6:] == ["1.0", "50.0%", *floors, "2.00", "`the command`"]


def test_the_gpu_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its measurement, on the CPU, without what only a GPU can tell."""
    config = run_config(TINY.model, 2, 8, "bf16")
    for name in ("reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 123)
    arguments = SimpleNamespace(steps=1, repeats=2, compile=False, tokens=16)
    found = gpu.measure(config, torch.device("cpu"), arguments, lambda: None)
    assert len(found["seconds"]) == 2
    assert found["peak_bytes"] == 123
