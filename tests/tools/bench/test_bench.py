import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor

from model.architectures.dit import DiT
from model.draws import Draws
from model.networks.base import Network
from model.networks.build import build
from tools.bench import reference, steps, train
from tools.bench.__main__ import main

SHAPE = {"vocab_size": 50, "width": 16, "layers": 1, "heads": 2, "batch": 2, "length": 8}
TINY = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads that wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_denoiser(time_conditioning: bool) -> Network:
    config = DiT(
        vocab_size=150, width=32, num_layers=2, num_heads=2, time_conditioning=time_conditioning
    )
    denoiser = build(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return denoiser


def gradients(denoiser: Network, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in denoiser.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(denoiser.parameters())), strict=True))


@pytest.mark.parametrize("carry_over", [False, True])
@pytest.mark.parametrize("time_conditioning", [False, True])
def test_the_reference_has_our_loss_and_gradients(
    time_conditioning: bool, carry_over: bool
) -> None:
    denoiser = tiny_denoiser(time_conditioning)
    tokens_BL = torch.randint(150, (6, 20), generator=torch.Generator().manual_seed(1))
    draws = Draws(seed=3, split="train", batch=6)
    noisy = steps.our_corrupt(tokens_BL, torch.arange(6), draws, denoiser)
    ours = steps.our_loss(denoiser.ask, noisy)
    plain = reference.mean_loss(
        denoiser, noisy.ids_BL, noisy.level_BK[:, 0], tokens_BL, carry_over=carry_over
    )
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    expected = gradients(denoiser, plain)
    for name, gradient in gradients(denoiser, ours).items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
        assert time_conditioning or gradient.any(), name


def test_both_corruptions_mask_as_much_and_nothing_else_changes() -> None:
    tokens_BL = torch.randint(150, (64, 64), generator=torch.Generator().manual_seed(1))
    noisy_BL, t_B = reference.corrupt(tokens_BL, mask=150)
    masked_BL = noisy_BL == 150
    assert torch.equal(noisy_BL[~masked_BL], tokens_BL[~masked_BL])
    assert float(t_B.min()) >= reference.EPS
    assert float(t_B.max()) <= 1.0
    noisy = steps.our_corrupt(
        tokens_BL, torch.arange(64), Draws(seed=0, split="train", batch=64), tiny_denoiser(False)
    )
    assert float(masked_BL.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(noisy.predict_mask_BL.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    arguments = ["train", *TINY, "--steps", "1", "--repeats", "2", "--device", "cpu"]
    assert main([*arguments, "--json", str(path), "--check"]) == 0
    result = json.loads(path.read_text())
    assert set(result) == {"benchmark", "machine", "comparisons"}
    assert {"cpu", "cores", "threads", "torch", "load_average"} <= set(result["machine"])
    rows = result["comparisons"]
    pairs = [(row["case"], row["ours"], row["reference"]) for row in rows]
    assert pairs == [
        ("fp32", "fp32", "fp32"),
        ("bf16", "bf16", "fp32"),
        ("bf16", "bf16", "bf16"),
        ("large-vocabulary", "fp32", "fp32"),
    ]
    for row in rows:
        assert len(row["ours_seconds"]) == len(row["reference_seconds"]) == 2
        assert row["ours_tokens_per_second"] == pytest.approx(16 / median(row["ours_seconds"]))
        assert row["target"] is None  # the targets hold for the shapes of the cases
        assert row["met"] is None
    output = capsys.readouterr()
    assert "large-vocabulary" in output.out
    assert "machine: cpu" in output.out


def test_a_missed_target_fails_only_under_check(monkeypatch: pytest.MonkeyPatch) -> None:
    case = train.Case(name="fp32", targets={"fp32:fp32": 1e9}, **SHAPE)
    monkeypatch.setattr(train, "CASES", (case,))
    arguments = ["train", "--steps", "1", "--repeats", "1", "--device", "cpu"]
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 1


def test_different_losses_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mean_loss = reference.mean_loss
    monkeypatch.setattr(
        reference, "mean_loss", lambda *args, **options: 1.001 * mean_loss(*args, **options)
    )
    assert main(["train", "--case", "fp32", *TINY, "--device", "cpu"]) == 2
    assert "differ on one corrupted batch" in capsys.readouterr().err
