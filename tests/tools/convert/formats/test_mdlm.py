"""The public MDLM layout, against that architecture written down again as a plain module."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.errors import RunError, UserError
from model.networks.config import ModelConfig
from pretrain.checkpoint.reader import Reader
from tools.convert.format import Options
from tools.convert.formats import mdlm
from tools.convert.from_hf import from_hf
from tools.convert.tensors import Tensors, of_checkpoint
from tools.convert.to_hf import to_hf

IDS, WIDTH, HEADS, CONDITION, LAYERS = 91, 32, 4, 16, 2


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.weight


class PublicBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = Gain()
        self.attn_qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attn_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = Gain()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.adaLN_modulation = nn.Linear(CONDITION, 6 * WIDTH)

    def forward(self, x: Tensor, c: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        parts = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        qkv = self.attn_qkv(self.norm1(x) * (1 + scale) + shift)
        q, k, v = qkv.view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).unbind(2)

        def turn(y: Tensor) -> Tensor:
            half = y.shape[-1] // 2
            a, b = y[..., :half], y[..., half:]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

        scores = torch.einsum("blhe,bmhe->bhlm", turn(q), turn(k)) / math.sqrt(WIDTH // HEADS)
        mixed = torch.einsum("bhlm,bmhe->blhe", scores.softmax(-1), v).flatten(2)
        x = x + gate * self.attn_out(mixed)
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)


class PublicMdlm(nn.Module):
    """Names and order of the public backbone; ``sigma`` is the total noise, or zero."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.vocab_embed = nn.Module()
        self.vocab_embed.embedding = nn.Parameter(torch.empty(IDS, WIDTH))
        self.sigma_map = nn.Module()
        self.sigma_map.mlp = nn.Sequential(
            nn.Linear(256, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION)
        )
        self.rotary_emb = nn.Module()
        size = WIDTH // HEADS
        frequency = 1.0 / 10_000 ** (torch.arange(0, size, 2).float() / size)
        self.rotary_emb.register_buffer("inv_freq", frequency)
        self.blocks = nn.ModuleList(PublicBlock() for _ in range(LAYERS))
        self.output_layer = nn.Module()
        self.output_layer.norm_final = Gain()
        self.output_layer.linear = nn.Linear(WIDTH, IDS)
        self.output_layer.adaLN_modulation = nn.Linear(CONDITION, 2 * WIDTH)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    @torch.no_grad()
    def forward(self, ids: Tensor, sigma: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        angle = sigma[:, None] * frequency
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)
        c = F.silu(self.sigma_map.mlp(features))
        place = torch.outer(torch.arange(ids.shape[1]).float(), self.rotary_emb.inv_freq)
        cos, sin = place.cos()[:, None], place.sin()[:, None]
        x = F.embedding(ids, self.vocab_embed.embedding)
        for block in self.blocks:
            x = block(x, c, cos, sin)
        last = self.output_layer
        shift, scale = last.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        return last.linear(last.norm_final(x) * (1 + scale) + shift)


def total_noise(t: Tensor) -> Tensor:
    """Of the log-linear schedule, in float32, as the public code computes it."""
    return -torch.log1p(-(1 - 1e-3) * t)


def public_state(prefix: str = "backbone.", seed: int = 0) -> tuple[PublicMdlm, dict[str, Tensor]]:
    public = PublicMdlm(seed)
    return public, {prefix + name: value for name, value in public.state_dict().items()}


@pytest.fixture
def equal(loaded, ids_of, our_logits):
    """Whether a checkpoint has the logits of the public network, but for [MASK]'s own."""

    def check(path: Path, public: PublicMdlm, mask: int = IDS - 1, level: float = 0.0) -> None:
        denoiser = loaded(path)
        assert denoiser.config.mask == mask
        ids = ids_of(IDS)
        sigma = total_noise(torch.full((len(ids),), level))
        expected, found = public(ids, sigma), our_logits(denoiser, ids, level)
        keep = [i for i in range(denoiser.config.vocab_size) if i != mask]
        torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)
        assert expected.abs().max() > 1

    return check


@pytest.mark.parametrize("prefix", ["backbone.", ""])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt"])
def test_the_public_format_comes_in(tmp_path: Path, equal, prefix: str, suffix: str) -> None:
    public, state = public_state(prefix)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if suffix == ".ckpt" else state, file)
    report = from_hf(file, tmp_path / "in")
    assert report["equal"]
    equal(tmp_path / "in", public)


def test_heads_are_told_where_no_file_tells_them(tmp_path: Path, equal) -> None:
    public, state = public_state()
    del state["backbone.rotary_emb.inv_freq"]
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="add --heads N"):
        from_hf(tmp_path / "weights.safetensors", tmp_path / "in")
    from_hf(tmp_path / "weights.safetensors", tmp_path / "in", options=Options(heads=HEADS))
    equal(tmp_path / "in", public)


def test_a_mask_of_the_tokenizers_own(tmp_path: Path, equal) -> None:
    public, state = public_state()
    save_file(state, tmp_path / "weights.safetensors")
    from_hf(tmp_path / "weights.safetensors", tmp_path / "in", options=Options(mask_id=17))
    equal(tmp_path / "in", public, mask=17)


def test_time_conditioning_reads_the_total_noise(tmp_path: Path, equal) -> None:
    public, state = public_state()
    save_file(state, tmp_path / "weights.safetensors")
    options = Options(time_conditioning=True)
    from_hf(tmp_path / "weights.safetensors", tmp_path / "in", options=options)
    for level in (0.0, 0.3, 1.0):
        equal(tmp_path / "in", public, level=level)


def ema_file(path: Path, **more: Any) -> PublicMdlm:
    """A .ckpt as the public trainer writes it; the network of its averaged weights."""
    averaged, _ = public_state(seed=1)
    _, state = public_state()
    shadow = [parameter.detach() for parameter in averaged.parameters()]
    ema = {"decay": 0.9999, "num_updates": 5, "shadow_params": shadow}
    torch.save({"state_dict": state, "ema": ema, "global_step": 5, **more}, path)
    return averaged


def test_the_list_of_averaged_weights_comes_in(tmp_path: Path, equal) -> None:
    averaged = ema_file(tmp_path / "last.ckpt")
    from_hf(tmp_path / "last.ckpt", tmp_path / "ema", ema=True, options=Options(heads=HEADS))
    equal(tmp_path / "ema", averaged)
    from_hf(tmp_path / "last.ckpt", tmp_path / "raw")
    equal(tmp_path / "raw", public_state()[0])


def test_a_list_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, state = public_state()
    shadow = [torch.zeros(3)]
    torch.save({"state_dict": state, "ema": {"shadow_params": shadow}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="the 1 averaged weights are not those of the 3"):
        from_hf(tmp_path / "last.ckpt", tmp_path / "in", ema=True)
    torch.save({"state_dict": state}, tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="holds no averaged weights"):
        from_hf(tmp_path / "none.ckpt", tmp_path / "in", ema=True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"mask_id": 5}, {"tied_head": True}, {"time_conditioning": True, "time_input": "noise"}],
    ids=str,
)
def test_ours_goes_out_as_the_public_format(
    saved, ids_of, our_logits, tmp_path: Path, settings: dict[str, Any]
) -> None:
    checkpoint, denoiser = saved(vocab_size=IDS - ("mask_id" not in settings), **settings)
    report = to_hf(checkpoint, tmp_path / "out", format_name="mdlm")
    assert report["equal"]
    state = load_file(tmp_path / "out" / "model.safetensors")
    public = PublicMdlm()
    frequency = public.rotary_emb.inv_freq.clone()
    public.rotary_emb.inv_freq.fill_(torch.nan)  # as from_pretrained leaves what it misses
    public.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in state.items()}, strict=True
    )
    torch.testing.assert_close(public.rotary_emb.inv_freq, frequency, rtol=1e-7, atol=0)
    level = 0.4 if denoiser.config.time_conditioning else 0.0
    ids = ids_of(IDS)
    sigma = total_noise(torch.full((3,), level))
    found, expected = public(ids, sigma), our_logits(denoiser, ids, level)
    keep = [i for i in range(denoiser.config.vocab_size) if i != denoiser.config.mask]
    torch.testing.assert_close(found[..., keep], expected[..., keep], rtol=0, atol=1e-5)


def test_out_and_in_again_is_the_same(saved, loaded, tmp_path: Path) -> None:
    checkpoint, denoiser = saved(vocab_size=IDS, mask_id=5)
    to_hf(checkpoint, tmp_path / "out", format_name="mdlm", shard_bytes=30_000)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mask_index"] == 5
    from_hf(tmp_path / "out", tmp_path / "in")
    for (name, before), after in zip(
        denoiser.named_parameters(), loaded(tmp_path / "in").parameters(), strict=True
    ):
        rows = IDS if ".tokens." in name or ".head." in name else len(before)
        assert torch.equal(before[:rows], after[:rows]), name


def test_what_has_no_place_is_refused_with_every_reason(saved, tmp_path: Path) -> None:
    checkpoint, _ = saved(norm="rmsnorm", mlp="swiglu", num_kv_heads=2, time_conditioning=True)
    with pytest.raises(UserError) as caught:
        to_hf(checkpoint, tmp_path / "out", format_name="mdlm")
    for reason in (
        "mlp is swiglu, and MDLM has gelu",
        "norm is rmsnorm, and MDLM has layernorm",
        "as many key heads as queries",
        "time_input is level",
    ):
        assert reason in str(caught.value)


@pytest.mark.parametrize("base", [5_000.0, 500_000.0])
def test_frequencies_of_another_base_are_refused(tmp_path: Path, base: float) -> None:
    _, state = public_state()
    size = WIDTH // HEADS
    state["backbone.rotary_emb.inv_freq"] = base ** -(torch.arange(0, size, 2) / size)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=r"inv_freq is not that of 4 frequencies to base 10000"):
        from_hf(tmp_path / "weights.safetensors", tmp_path / "in")


def loud_state(largest: float = 50.0) -> tuple[PublicMdlm, dict[str, Tensor]]:
    """With logits as large as those of models of a million steps."""
    public, _ = public_state()
    with torch.no_grad():
        for parameter in public.blocks.parameters():
            parameter.mul_(2)
        ids = torch.arange(60).view(3, 20)
        reached = public(ids, torch.zeros(3)).abs().max()
        public.output_layer.linear.weight.mul_(largest / reached)
        public.output_layer.linear.bias.mul_(largest / reached)
        assert public(ids, torch.zeros(3)).abs().max() > largest - 1
    return public, {f"backbone.{name}": value for name, value in public.state_dict().items()}


@pytest.mark.parametrize("largest", [50.0, 3_000.0, 1e-4])
def test_logits_of_any_size_come_in(tmp_path: Path, largest: float) -> None:
    _, state = loud_state(largest)
    save_file(state, tmp_path / "weights.safetensors")
    report = from_hf(tmp_path / "weights.safetensors", tmp_path / "in")
    assert report["largest_logit"] > 0.5 * largest
    assert report["largest_difference"] < 1e-12 * report["largest_logit"]
    assert to_hf(tmp_path / "in", tmp_path / "out", format_name="mdlm")["equal"]


@pytest.mark.parametrize("largest", [50.0, 1e-4])
@pytest.mark.parametrize("wrong", ["heads", "bias", "one weight", "epsilon"])
def test_a_wrong_conversion_is_caught_at_any_size(
    tmp_path: Path, monkeypatch, wrong: str, largest: float
) -> None:
    """Two heads exchanged, a bias left out, one weight off by 1e-6 of itself, another epsilon."""
    _, state = loud_state(largest)
    save_file(state, tmp_path / "weights.safetensors")
    honest = mdlm._ours

    def conversion(bare: Tensors, model: ModelConfig, ids: Any, name: str) -> Tensor:
        value = honest(bare, model, ids, name)
        if wrong == "heads" and name == "layers.2.attention.q.weight":
            first, second, *rest = value.chunk(HEADS)
            return torch.cat([second, first, *rest])
        if wrong == "bias" and name == "layers.1.mlp.down.bias":
            return torch.zeros_like(value)
        if wrong == "one weight" and name == "layers.1.attention.out.weight":
            value[3, 5] *= 1 + 1e-6
        return value

    monkeypatch.setattr(mdlm, "_ours", conversion)
    if wrong == "epsilon":
        given = mdlm._model
        monkeypatch.setattr(
            mdlm, "_model", lambda *a: (replace(given(*a)[0], norm_eps=1.1e-5), given(*a)[1])
        )
    with pytest.raises(RunError, match="nothing was written"):
        from_hf(tmp_path / "weights.safetensors", tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_rows_beyond_the_tokenizer_are_left_out(tmp_path: Path) -> None:
    """[MASK], beyond the tokenizer too, becomes the id after the last."""
    _, state = public_state()
    save_file(state, tmp_path / "weights.safetensors")
    options = Options(vocab_size=80, mask_id=85)
    assert from_hf(tmp_path / "weights.safetensors", tmp_path / "in", options=options)["equal"]
    read = of_checkpoint(Reader(tmp_path / "in"), "master").read
    for name, theirs in (
        ("layers.0.tokens.weight", "vocab_embed.embedding"),
        ("layers.3.head.weight", "output_layer.linear.weight"),
        ("layers.3.head.bias", "output_layer.linear.bias"),
    ):
        found, rows = read(name), state[f"backbone.{theirs}"]
        assert torch.equal(found[:80], rows[:80])
        assert torch.equal(found[80], rows[85])
        assert not found[81:].any()
    more = Options(vocab_size=92)
    with pytest.raises(UserError, match="the tokenizer has 92 ids"):
        from_hf(tmp_path / "weights.safetensors", tmp_path / "other", options=more)
