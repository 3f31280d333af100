"""Exports that are built without memory and filled afterwards compute what they should."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import configured, random_weights, run_of, save_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from model.networks.build import build
from model.networks.layers import rotate
from model.networks.linears import Head
from model.processes.gaussian import Gaussian
from tools.convert.to_hf import to_hf

PLAIN: dict[str, Any] = {"qkv_bias": True}
DENOISERS: dict[str, dict[str, Any]] = {
    "adaln": {"time_conditioning": True, "mask_id": 3},
    "tied": {"tied_head": True},
    "llama": {**PLAIN, "name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", "qk_norm": True},
    "bert": {
        **PLAIN,
        "name": "transformer",
        "norm_first": False,
        "norm_bias": True,
        "num_positions": 40,
    },
}
GENIES: dict[str, dict[str, Any]] = {
    "mixture": {"output": "mixture"},
    "bert": {"encoder": "bert", "time": "additive", "positions": "learned"},
}


def assigned(build: Callable[[], Any], state: dict[str, Tensor]) -> Any:
    """The model is made of the tensors of the state dict."""
    with torch.device("meta"):
        model = build()
    model.load_state_dict(state, assign=True)
    return model


def copied(build: Callable[[], Any], state: dict[str, Tensor]) -> Any:
    """Memory first, whatever it holds, then the state dict over it."""
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for value in chain(model.parameters(), model.buffers()):
            value.fill_(torch.nan)
    model.load_state_dict(state)
    return model


def filled(kind: Any, path: Path) -> tuple[Any, list[Any]]:
    """An export as transformers loads it, and as it is when it is filled by hand."""
    whole = kind.from_pretrained(path, trust_remote_code=True).eval()
    config = AutoConfig.from_pretrained(path, trust_remote_code=True)
    found = []
    for way in (assigned, copied):
        state = {name: value.clone() for name, value in whole.state_dict().items()}
        made = way(lambda: kind.from_config(config, trust_remote_code=True), state)
        assert not lost(made)
        found.append(made.eval())
    return whole, found


def lost(model: nn.Module) -> set[str]:
    """Buffers that no state dict brings back."""
    return {name for name, _ in model.named_buffers()} - model.state_dict().keys()


@pytest.mark.parametrize("variant", DENOISERS)
def test_a_denoiser(saved, ids_of, tmp_path: Path, variant: str) -> None:
    checkpoint, denoiser = saved(**DENOISERS[variant])
    to_hf(checkpoint, tmp_path / "out")
    whole, others = filled(AutoModelForMaskedLM, tmp_path / "out")
    ids = ids_of(90)
    for made in others:
        with torch.no_grad():
            found = made(ids, level=torch.full((3,), 0.5)).logits
            assert torch.equal(found, whole(ids, level=torch.full((3,), 0.5)).logits)
        assert (found[..., denoiser.config.mask] == -torch.inf).all()
    assert not lost(denoiser)


@pytest.mark.parametrize("variant", GENIES)
def test_a_genie(tmp_path: Path, variant: str) -> None:
    sizes = {"num_encoder_layers": 2, "embedding_width": 12, "max_positions": 20}
    config = configured(name="encoder_decoder", **sizes, **GENIES[variant])
    network = random_weights(build(config))
    data = {"packing": "pairs", "source_length": 9, "sequence_length": 7}
    run = run_of(network.config, objective={"name": "genie", "num_steps": 40}, data=data)
    save_weights(tmp_path / "ckpt", network, run, 20_000)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    whole, others = filled(AutoModelForSeq2SeqLM, tmp_path / "out")
    ids = torch.randint(4, 90, (3, 9), generator=torch.Generator().manual_seed(1))
    sampled = whole.generate(ids, sampling_steps=3, seed=0)
    for made in others:
        with torch.no_grad():
            found, wanted = made(ids, labels=ids[:, :7]), whole(ids, labels=ids[:, :7])
        assert torch.equal(found.logits, wanted.logits)
        assert torch.equal(found.loss, wanted.loss)
        assert (found.logits[..., network.config.mask] == -torch.inf).all()
        assert torch.equal(made.generate(ids, sampling_steps=3, seed=0), sampled)
    assert not lost(network)


def test_what_is_kept_is_kept_whole_whoever_asks_first() -> None:
    """A model that is built or tried on the meta device leaves no empty table behind."""
    with torch.device("meta"):
        x = torch.zeros(1, 5, 2, 6)
        assert rotate(x, 77.0).is_meta
        assert Head(4, 3, torch.tensor([False, True, False], device="cpu"), bias=True)(
            x[0, :, 0, :4]
        ).is_meta
        process = Gaussian(schedule="cosine", num_steps=23)
        assert process.start_std > 0
        on_cpu = torch.ones(1, 5, 2, 6, device="cpu")
        assert rotate(on_cpu, 78.0).isfinite().all()
    assert rotate(on_cpu, 77.0).isfinite().all()
    assert process.abar(torch.arange(23)).isfinite().all()
