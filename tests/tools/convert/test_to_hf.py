"""Out to transformers and back: the same logits, the same weights, bounded memory."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import BERT
from small_models import configured, random_weights, run_of, save_weights
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from configs.errors import UserError
from model.networks.build import build
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import Which
from tools.convert import parity
from tools.convert.__main__ import main
from tools.convert.code import flat_files
from tools.convert.format import Options
from tools.convert.from_hf import from_hf
from tools.convert.to_hf import to_hf

GROUPED = {"num_kv_heads": 2, "qk_norm": True, "qkv_bias": True}
LLAMA: dict[str, Any] = {"name": "transformer", "mlp": "swiglu", "norm": "rmsnorm", **GROUPED}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "time": {"time_conditioning": True},
    "tied": {"tied_head": True, "mask_id": 3},
    "grouped": GROUPED,
    "llama": {**LLAMA, "shifted_output": True, "causal_annealing_steps": 5},
    "bert": BERT,
}


def model_of(path: Path, kind: Any = AutoModelForMaskedLM, **settings: Any) -> Any:
    return kind.from_pretrained(path, trust_remote_code=True, **settings).eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_gives_our_logits(
    saved, ids_of, our_logits, tmp_path: Path, variant: str
) -> None:
    checkpoint, denoiser = saved(**VARIANTS[variant])
    report = to_hf(checkpoint, tmp_path / "out", shard_bytes=20_000)
    assert report["equal"]
    assert report["largest_difference"] == 0
    model = model_of(tmp_path / "out")
    ids = ids_of(denoiser.config.num_ids)
    with torch.no_grad():
        found = model(ids, level=torch.full((3,), 0.5)).logits
    assert found.shape[-1] == denoiser.config.num_ids == model.config.vocab_size
    assert torch.equal(found[..., : denoiser.config.vocab_size], our_logits(denoiser, ids))
    assert (found[..., denoiser.config.mask] == -torch.inf).all()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == denoiser.config.tied_head


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back_is_the_same_bit_by_bit(saved, tmp_path: Path, variant: str) -> None:
    checkpoint, _ = saved(**VARIANTS[variant])
    to_hf(checkpoint, tmp_path / "out")
    from_hf(tmp_path / "out", tmp_path / "back", shard_bytes=9_000)
    before, after = Reader(checkpoint), Reader(tmp_path / "back")
    assert after.kinds() == ["master"]
    values = dict(after.whole("master"))
    for name, value in before.whole("master"):
        assert torch.equal(value, values.pop(name))
    assert not values
    for key in ("step", "tokens_seen", "score"):
        assert after.state[key] == before.state[key]
    assert after.state["config"]["model"] == before.state["config"]["model"]


def test_what_transformers_saves_comes_back(
    saved, tmp_path: Path, loaded, ids_of, our_logits
) -> None:
    """After fine-tuning, say: its own names, config and shards."""
    for name, settings in (("a", {}), ("b", {"tied_head": True})):
        checkpoint, denoiser = saved(name, **settings)
        to_hf(checkpoint, tmp_path / f"{name}-out")
        model_of(tmp_path / f"{name}-out").save_pretrained(tmp_path / f"{name}-again")
        from_hf(tmp_path / f"{name}-again", tmp_path / f"{name}-back")
        ids = ids_of(90)
        back = loaded(tmp_path / f"{name}-back")
        assert torch.equal(our_logits(back, ids), our_logits(denoiser, ids))


def test_padding_is_hidden(saved, ids_of, tmp_path: Path) -> None:
    for name, settings in (("adaln", {}), ("llama", LLAMA), ("bert", BERT)):
        checkpoint, _ = saved(name, **settings)
        to_hf(checkpoint, tmp_path / f"{name}-out")
        model = model_of(tmp_path / f"{name}-out")
        ids = ids_of(90)
        mask = (torch.arange(12) < torch.tensor([[12], [7], [1]])).long()
        with torch.no_grad():
            padded = model(ids, mask).logits
            other = model(torch.where(mask.bool(), ids, (ids + 1) % 90), mask).logits
            alone = model(ids[1:2, :7]).logits
            every = model(ids, torch.ones_like(ids)).logits
            none = model(ids).logits
        assert torch.equal(padded[mask.bool()], other[mask.bool()])
        torch.testing.assert_close(padded[1:2, :7], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(every, none, rtol=0, atol=1e-5)
        assert not torch.allclose(padded[1, :7], none[1, :7], atol=1e-3)


def test_the_level_is_the_share_of_masks_where_none_is_given(saved, ids_of, tmp_path: Path) -> None:
    checkpoint, denoiser = saved(time_conditioning=True)
    to_hf(checkpoint, tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids = ids_of(90, rows=1)
    ids[0, :3] = denoiser.config.mask
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids, level=torch.tensor([0.25])).logits)
        valid = (torch.arange(12) < 6).long()[None]
        padded = model(ids, valid).logits
        assert torch.equal(padded, model(ids, valid, level=torch.tensor([0.5])).logits)
        assert not torch.equal(padded, model(ids, valid, level=torch.tensor([0.9])).logits)


def test_labels_give_the_mean_loss(saved, ids_of, tmp_path: Path) -> None:
    checkpoint, denoiser = saved()
    to_hf(checkpoint, tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids = ids_of(90)
    labels = torch.full_like(ids, -100)
    labels[0, 3], labels[2, 5] = 11, 40
    out = model(ids.masked_fill(labels >= 0, denoiser.config.mask), labels=labels)
    log_p = out.logits.log_softmax(-1)
    torch.testing.assert_close(out.loss, -(log_p[0, 3, 11] + log_p[2, 5, 40]) / 2)
    with pytest.raises(ValueError, match="give input_ids or inputs_embeds, and not both"):
        model(ids, inputs_embeds=torch.zeros(1, 2, 32))


def test_the_bare_model_gives_what_the_head_reads(saved, ids_of, tmp_path: Path) -> None:
    for name, settings in (("adaln", {}), ("tied", {"tied_head": True}), ("llama", LLAMA)):
        checkpoint, denoiser = saved(name, **settings)
        to_hf(checkpoint, tmp_path / f"{name}-out")
        ids = ids_of(90)
        with torch.no_grad():
            hidden = model_of(tmp_path / f"{name}-out", AutoModel)(ids).last_hidden_state
            logits = model_of(tmp_path / f"{name}-out")(ids).logits
            assert torch.equal(denoiser.output.head(hidden)[..., :91], logits)


def test_the_directory_is_whole(on_corpus, tmp_path: Path, corpus: Path) -> None:
    checkpoint, denoiser = on_corpus
    report = to_hf(checkpoint, tmp_path / "out", shard_bytes=100_000)
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "generation_config.json", "README.md", "parity.json"} <= found
    assert {"tokenizer.json", "tokenizer_config.json", "modeling_palimpsest.py"} <= found
    shards = sorted(name for name in found if name.startswith("model-"))
    assert len(shards) > 1
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    sizes = [(tmp_path / "out" / name).stat().st_size for name in shards]
    largest = max(4 * p.numel() for p in denoiser.parameters())
    assert max(sizes) < max(100_000, largest) + 10_000
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written["equal"]
    assert written["limit"] == 1e-9
    assert report["largest_difference"] == written["largest_difference"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| steps | 7 of 10 |" in card
    assert "| held-out bound | 4.2500 nats per token |" in card
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=True)
    batch = tokenizer(["The if statement", "x"], padding=True, return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"}
    assert model_of(tmp_path / "out")(**batch).logits.shape[:2] == batch["input_ids"].shape
    assert tokenizer.mask_token_id == denoiser.config.mask
    assert str(tmp_path) not in card


def test_averaged_weights_are_the_default(saved, tmp_path: Path, corpus: Path, train) -> None:
    train("stop_after=2", "checkpoint.every=2", run="run")
    run = tmp_path / "run"
    kinds: dict[Which, str] = {"ema": "ema", "raw": "master"}
    for which, kind in kinds.items():
        to_hf(run, tmp_path / which, weights=which)
        state = model_of(tmp_path / which).state_dict()
        reader = Reader(run / "checkpoints" / "step-00000002")
        for name, value in reader.whole(kind):
            assert torch.equal(state[f"denoiser.{name}"], value)


def test_the_exported_code_is_the_projects_own_and_needs_two_packages(root: Path) -> None:
    denoiser = flat_files("modeling_palimpsest", "dit", "mdlm", "linear", ["ancestral"])
    assert {"dit.py", "layers.py", "config.py", "linear.py"} <= denoiser.keys()
    assert not {"cosine.py", "encoder_decoder.py", "transformer.py", "genie.py"} & denoiser.keys()
    seq2seq = flat_files(
        "modeling_palimpsest_seq2seq", "encoder_decoder", "genie", None, ["ddim", "ddpm"]
    )
    assert {
        "encoder_decoder.py",
        "genie.py",
        "objectives.py",
        "gaussian.py",
        "ddpm.py",
    } <= seq2seq.keys()
    for name, text in (denoiser | seq2seq).items():
        assert "from model" not in text, name
        assert "import tools" not in text, name
        places = [*root.glob(f"model/**/{name}"), root / "model" / Path(name).stem / "__init__.py"]
        exported_from = [place for place in places if "verification" not in place.parts]
        for source in filter(Path.exists, exported_from):
            own, exported = source.read_text().splitlines(), text.splitlines()
            changed = [(a, b) for a, b in zip(own, exported, strict=True) if a != b]
            assert all(b == re.sub(r"from model\.(\w+\.)*", "from .", a) for a, b in changed)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("autoregressive", "its text is not written by filling in"),
        ("udlm", "its text is not written by filling in"),
        ("bd3lm", "it attends by a layout of its own"),
    ],
)
def test_what_transformers_has_no_form_for_is_refused_by_name(
    tmp_path: Path, objective: str, message: str
) -> None:
    denoiser = random_weights(build(configured()))
    run = run_of(denoiser.config, objective={"name": objective})
    save_weights(tmp_path / "ckpt", denoiser, run, 2**20)
    told = f"objective {objective} has no form in transformers.*{message}"
    with pytest.raises(UserError, match=told):
        to_hf(tmp_path / "ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_holds_its_own_method_and_no_other(tmp_path: Path) -> None:
    denoiser = random_weights(build(configured()))
    save_weights(tmp_path / "ckpt", denoiser, run_of(denoiser.config), 2**20)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    method = (tmp_path / "out" / "method.py").read_text(encoding="utf-8")
    assert 'OBJECTIVES: dict[str, Any] = {"mdlm": Mdlm}' in method
    assert 'SAMPLERS: dict[str, Any] = {"ancestral": Ancestral, "' in method
    for other in ("genie", "blockwise", "ddpm"):
        assert not (tmp_path / "out" / f"{other}.py").exists()


SETTLE = """
import sys, threading, time
from pathlib import Path
from tools.convert.to_hf import to_hf
from tools.convert.from_hf import from_hf
from tools.convert.format import Options
import tools.convert.formats.palimpsest, tools.convert.code

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

peak, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

small, big, out, back = map(Path, sys.argv[1:])
to_hf(small, Path(str(out) + "-warm"))
from_hf(Path(str(out) + "-warm"), Path(str(back) + "-warm"))
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
to_hf(big, out, shard_bytes=4 * 2**20)
from_hf(out, back, shard_bytes=4 * 2**20)
stop.set()
print(peak[0] - before)
"""


@pytest.mark.slow
def test_memory_is_bounded_by_a_shard_and_not_by_the_model(
    saved, root: Path, tmp_path: Path
) -> None:
    small, _ = saved("small")
    big, denoiser = saved(
        "big", shard_bytes=2**30, width=256, num_layers=12, vocab_size=1000, num_heads=4
    )
    model = sum(4 * p.numel() for p in denoiser.parameters())
    assert model > 36 * 2**20
    paths = [str(path) for path in (small, big, tmp_path / "out", tmp_path / "back")]
    done = subprocess.run(
        [sys.executable, "-c", SETTLE, *paths], cwd=root, capture_output=True, text=True, check=True
    )
    # A shard of 4 MiB twice (as tensors, and as the bytes of the file), and one layer twice.
    assert int(done.stdout.split()[-1]) < 20 * 2**20


def test_an_export_may_be_without_a_tokenizer(on_corpus, tmp_path: Path, capsys) -> None:
    checkpoint, _ = on_corpus
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out"), "--no-tokenizer"]) == 0
    assert "name one with --tokenizer" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert "none lies beside the weights" in (tmp_path / "out" / "README.md").read_text()


def test_a_difference_is_an_error_and_leaves_nothing(
    saved, tmp_path: Path, capsys, monkeypatch
) -> None:
    checkpoint, _ = saved()
    honest = parity.of_network
    monkeypatch.setattr(
        parity, "of_network", lambda *given: lambda inputs: honest(*given)(inputs) + 2e-8
    )
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.search(r"differ by 2e-08, more than 1e-09 of the largest \(\d\.\d+\): nothing", error)
    assert not (tmp_path / "out").exists()


def test_no_room_is_said_before_anything_is_written(
    saved, tmp_path: Path, capsys, monkeypatch
) -> None:
    checkpoint, _ = saved()
    usage = type("Usage", (), {"free": 300_000})
    monkeypatch.setattr("tools.convert.output.shutil.disk_usage", lambda folder: usage)
    assert main(["to-hf", str(checkpoint), str(tmp_path / "out")]) == 2
    assert "GiB free, and the result takes" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("settings", [{}, {"mask_id": 3}, {"tied_head": True}], ids=str)
def test_rows_beyond_the_tokenizer_are_left_out(
    saved, loaded, tmp_path: Path, settings: dict[str, Any]
) -> None:
    checkpoint, denoiser = saved(**settings)
    to_hf(checkpoint, tmp_path / "out")
    report = from_hf(tmp_path / "out", tmp_path / "in", options=Options(vocab_size=77))
    assert report["equal"]
    config = loaded(tmp_path / "in").config
    assert (config.vocab_size, config.mask_id) == (77, settings.get("mask_id"))
    found, before = loaded(tmp_path / "in").embedding.weight, denoiser.embedding.weight
    assert torch.equal(found[:77], before[:77])
    assert torch.equal(found[config.mask], before[denoiser.config.mask])
